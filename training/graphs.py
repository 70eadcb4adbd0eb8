"""A model's inference as one graph that other runtimes can take over."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf


def inference_graph(model: keras.Model, signature: tuple[tf.TensorSpec], output: str) -> Any:
    """A traced function of one input, whose result is a dictionary of the one `output`."""
    _keep_normalization_as_arrays(model)
    return tf.function(lambda x: {output: model(x, training=False)}, signature, autograph=False)


def constant_graph(model: keras.Model, signature: tf.TensorSpec, output: str) -> tf.compat.v1.GraphDef:
    """The same with the weights of the moment in it; to take them out of a traced function's variables is slower."""
    _keep_normalization_as_arrays(model)
    learned, others = (
        [weight.numpy() for weight in some] for some in (model.trainable_variables, model.non_trainable_variables)
    )
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(signature.dtype, signature.shape, signature.name)
        found, _ = model.stateless_call(
            [tf.constant(weight) for weight in learned], [tf.constant(weight) for weight in others], x, training=False
        )
        tf.identity(found, output)
    return graph.as_graph_def()


def _keep_normalization_as_arrays(model: keras.Model) -> None:
    """A tensor made outside the graph would become an input of it; an array becomes a constant."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            layer.mean, layer.variance = np.asarray(layer.mean), np.asarray(layer.variance)
