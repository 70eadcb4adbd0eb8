"""A model's inference as one graph that other runtimes can take over."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf


def inference_graph(model: keras.Model, signature: tuple[tf.TensorSpec], output: str) -> Any:
    """A traced function of one input, whose result is a dictionary of the one `output`."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            # A tensor made outside the graph would become an input of it; an array becomes a constant.
            layer.mean, layer.variance = np.asarray(layer.mean), np.asarray(layer.variance)
    return tf.function(lambda x: {output: model(x, training=False)}, signature, autograph=False)
