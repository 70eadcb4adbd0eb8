"""The BatchNormalization layers of a model, however deep: which there are, which are frozen, how they are called."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras.layers import BatchNormalization as BatchNorm


def batch_norm_layers(model: keras.Model) -> list[BatchNorm]:
    """Every BatchNormalization of a model, however deep, each once, in the order in which layers were added."""
    found = {id(layer): layer for layer in _flat(model) if isinstance(layer, BatchNorm)}
    return list(found.values())


def learning_layers(model: keras.Model) -> list[BatchNorm]:
    """The layers whose statistics training moves: a frozen one stays in inference mode."""
    return [layer for layer in batch_norm_layers(model) if layer.trainable]


def freeze_batch_norm(model: keras.Model) -> None:
    """Keep every BatchNormalization in inference mode while the rest trains; compile the model afterwards.

    Calling a base with ``training=False`` is not enough: inside a Functional model `fit` overrides it (keras#20285).
    """
    for layer in batch_norm_layers(model):
        layer.trainable = False


def statistics_variables(layers: Iterable[BatchNorm]) -> list[Any]:
    """What the layers normalise by in inference mode, layer by layer: moving mean and variance.

    Batch renormalization keeps a moving deviation beside the variance, from which training goes on.
    """
    names = ("moving_mean", "moving_variance")
    return [
        getattr(layer, name) for layer in layers for name in (*names, *(("moving_stddev",) if layer.renorm else ()))
    ]


@contextmanager
def unchanged_on_error(variables: Sequence[Any]) -> Iterator[None]:
    """Put the variables' values back if anything, an interrupt too, ends the block early."""
    before = [variable.numpy() for variable in variables]
    try:
        yield
    except BaseException:
        put_back(variables, before)
        raise


@contextmanager
def unchanged(variables: Sequence[Any]) -> Iterator[None]:
    """Put the variables' values back when the block ends, however it does."""
    before = [variable.numpy() for variable in variables]
    try:
        yield
    finally:
        put_back(variables, before)


def put_back(variables: Sequence[Any], values: Sequence[np.ndarray]) -> None:
    """Assign the values."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


@contextmanager
def calling(layers: Sequence[keras.layers.Layer], replaced: Any) -> Iterator[None]:
    """Inside, each layer's `call` is ``replaced(layer)``: an instance attribute shadows the class's method.

    One of these may be inside another, as when a callback traces while `fit` runs.
    """
    before = [vars(layer).get("call") for layer in layers]
    try:
        for layer in layers:
            layer.call = replaced(layer)
        yield
    finally:
        for layer, shadow in zip(layers, before, strict=True):
            if shadow is None:
                vars(layer).pop("call", None)
            else:
                layer.call = shadow


def _flat(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    # Keras's own recursion turns the order of nested models around.
    for child in layer._flatten_layers(include_self=False, recursive=False):
        yield child
        yield from _flat(child)
