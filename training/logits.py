"""Logits of a Keras classifier whose output is a probability, and cross-entropies computed from them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from training.rows import Array
from training.shards import spans
from training.threads import AT_ONCE, first_here

Logits = Callable[[Any], Any]

_PROBABILITIES = (keras.activations.sigmoid, keras.activations.softmax)


def output_layer(model: keras.Model) -> keras.layers.Layer:
    """The layer whose activation makes the probabilities.

    Raises:
        ValueError: the model does not end in one Dense (or Activation) with sigmoid, softmax or no activation.
    """
    layer = model
    while isinstance(layer, keras.Model):
        layer = _last(layer)
    if not hasattr(layer, "activation") or layer.activation not in (*_PROBABILITIES, keras.activations.linear):
        raise ValueError(
            f"model: received a last layer {layer.name!r}, expected one with sigmoid or softmax activation"
        )
    return layer


@contextmanager
def raw_output(model: keras.Model) -> Iterator[None]:
    """While a graph is traced inside, the model gives logits instead of probabilities."""
    layer = output_layer(model)
    activation = layer.activation
    layer.activation = keras.activations.linear
    try:
        yield
    finally:
        layer.activation = activation


def inference_logits(model: keras.Model) -> Logits:
    """A traced function from a batch of inputs to logits, in inference mode, with the statistics of the moment."""

    @tf.function(reduce_retracing=True)
    def forward(batch: Any) -> Any:
        with raw_output(model):
            return model(batch, training=False)

    return forward


def in_batches(forward: Logits, x: Array, batch_size: int, at_once: int = AT_ONCE) -> np.ndarray:
    """`forward` over all of `x`, shape (n, outputs); `at_once` is 1 where an answer depends on those before."""
    return answered(forward, batches(x, batch_size), at_once)


def answered(forward: Logits, inputs: Iterable[Any], at_once: int = AT_ONCE) -> np.ndarray:
    """`forward` of each batch, one after the other, shape (n, outputs)."""
    return np.concatenate(list(first_here(lambda batch: np.asarray(forward(batch)), inputs, at_once)))


def batches(x: Array, batch_size: int) -> Iterator[Any]:
    """`x` as tensors of `batch_size` rows (see `spans`)."""
    for rows in spans(len(x), batch_size):
        yield tf.convert_to_tensor(x[rows.start : rows.stop])


def cross_entropies(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Bare cross-entropy of each row in nats, float64, shape (n,).

    Args:
        logits: (n, 1) for a binary classifier, (n, K) for K classes.
        labels: class numbers of shape (n,) or (n, 1), or one-hot rows (n, K).
    """
    scores = np.asarray(logits, np.float64).reshape(len(logits), -1)
    classes = class_numbers(labels)
    if scores.shape[1] == 1:
        return np.logaddexp(0, scores[:, 0]) - classes * scores[:, 0]
    return np.logaddexp.reduce(scores, axis=1) - scores[np.arange(len(scores)), classes]


def class_numbers(labels: np.ndarray) -> np.ndarray:
    """Labels in any usual form as class numbers, shape (n,)."""
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] > 1:
        return labels.argmax(axis=1)
    return np.rint(labels.reshape(len(labels))).astype(np.int64)  # smoothed labels are not whole numbers


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Sigmoid of (n, 1) or softmax of (n, K) logits, the same shape, float64."""
    scores = np.asarray(logits, np.float64)
    if scores.shape[1] == 1:
        return np.exp(-np.logaddexp(0, -scores))
    return np.exp(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True))


def _last(model: Any) -> Any:
    outputs = model.outputs
    if len(outputs) != 1:
        raise ValueError(f"model: received {len(outputs)} outputs, expected one")
    return outputs[0]._keras_history.operation
