"""Fold BatchNormalization away: the same function of its inputs without it, as a starting point for training.

In inference mode the layer is a scale and a shift of each channel, and a convolution before it can do both.
"""

import string
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers
from keras.layers import BatchNormalization as BatchNorm
from keras.src.models.functional import Functional

from training.batchnorm.layers import batch_norm_layers

_TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_HOSTS = (
    *(layers.Conv1D, layers.Conv2D, layers.Conv3D, layers.Dense, layers.SeparableConv1D, layers.SeparableConv2D),
    *_TRANSPOSED,
    *_DEPTHWISE,
)
# By rank of the input; many times faster than EinsumDense, which can do every other one.
_SCALINGS = {3: layers.DepthwiseConv1D, 4: layers.DepthwiseConv2D}


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """A copy of `model` without BatchNormalization that gives the same results in inference mode; all of it trains.

    A layer that alone follows a linear convolution or Dense layer goes into its kernel and bias, computed in float64.
    Any other becomes a trainable scale and shift of each channel, under its own name.

    Args:
        model: a built Functional or Sequential model, nested ones included; it is left as it is.

    Returns:
        An uncompiled model with the same names, settings and dtypes; what is new in it are built-in Keras layers.

    Raises:
        ValueError: something cannot be expressed so; one line names the layer.
    """
    folding = _Folding(model)
    folded = folding.copied(model)
    folding.fill()
    for layer in folded._flatten_layers():
        layer.trainable = True  # one by one: a model that says True already passes nothing on
    return folded


class _Folding:
    """Copies of a model's layers, each made once, however many models share it."""

    def __init__(self, model: keras.Model) -> None:
        # By id of the layer that takes a BatchNorm in; and the ids of those taken in.
        self.hosts = dict(_hosts([_graph(found) for found in _models(model).values()]))
        self.gone = {id(batch_norm) for batch_norm in self.hosts.values()}
        self.copies: dict[int, tuple[Any, Any]] = {}

    def copied(self, model: keras.Model) -> keras.Model:
        """The model over copies of its layers."""
        if not isinstance(model, keras.Sequential):
            return keras.models.clone_model(_graph(model), clone_function=self._called)
        x = model.inputs[0]
        kept = [self.copy(layer) for layer in model.layers if id(layer) not in self.gone]
        return keras.Sequential([keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x.name), *kept], name=model.name)

    def copy(self, operation: Any) -> Any:
        """The operation's copy; weights come later."""
        if id(operation) not in self.copies:
            self.copies[id(operation)] = operation, self._new(operation)
        return self.copies[id(operation)][1]

    def _called(self, operation: Any) -> Any:
        """What to call in the operation's place while the graph is built."""
        if id(operation) in self.gone:
            return lambda x, **_: x
        if isinstance(operation, BatchNorm):
            return lambda x, **_: self.copy(operation)(x)  # no mask, nor whether it is training
        return self.copy(operation)

    def fill(self) -> None:
        """Give every copy its weights."""
        for layer, copy in self.copies.values():
            if id(layer) in self.hosts:
                copy.set_weights(_with_batch_norm(layer, self.hosts[id(layer)]))
            elif isinstance(layer, BatchNorm):
                scale, shift = _scale_and_shift(layer)
                copy.set_weights([scale.reshape(copy.weights[0].shape), shift.reshape(copy.bias.shape)])
            elif isinstance(layer, layers.Layer) and not _is_graph(layer):
                copy.set_weights(layer.get_weights())

    def _new(self, operation: Any) -> Any:
        if _is_graph(operation):
            return self.copied(operation)
        if isinstance(operation, BatchNorm):
            return _scaling(operation)
        config = operation.get_config() | ({"use_bias": True} if id(operation) in self.hosts else {})
        return type(operation).from_config(config)


def _is_graph(layer: Any) -> bool:
    """Whether the layer is a model whose layers and tensors are known."""
    return type(layer) in (Functional, keras.Sequential)


def _models(model: Any) -> dict[int, Any]:
    """The model and every one inside it, by id.

    Raises:
        ValueError: there is one that cannot be looked into, or a BatchNorm in a layer that cannot.
    """
    if not _is_graph(model):
        expected = "a Functional or Sequential model around BatchNormalization"
        raise ValueError(f"layer {model.name}: received a {type(model).__name__}, expected {expected}")
    if not model.built:
        raise ValueError(f"layer {model.name}: received a model without weights, expected one that was built or called")
    found = {id(model): model}
    for layer in model.layers:
        if _is_graph(layer) or (batch_norm_layers(layer) and not isinstance(layer, BatchNorm)):
            found |= _models(layer)
    return found


def _graph(model: Any) -> Functional:
    """The model's layers and tensors as an uncompiled Functional model."""
    single = isinstance(model, keras.Sequential)
    inputs, outputs = (model.inputs[0], model.outputs[0]) if single else (model.input, model.output)
    return keras.Model(inputs, outputs, name=model.name)


def _hosts(graphs: Sequence[Functional]) -> Iterator[tuple[int, BatchNorm]]:
    """Each layer's id that can take in the BatchNorm after it, and that BatchNorm."""
    calls = Counter(id(node.operation) for graph in graphs for node in _nodes(graph))
    for graph in graphs:
        readers = Counter(id(x) for node in _nodes(graph) for x in node.input_tensors)
        readers.update(id(x) for x in graph.outputs)
        for node in _nodes(graph):
            if isinstance(node.operation, BatchNorm):
                x, batch_norm = node.input_tensors[0], node.operation
                host = x._keras_history.operation
                alone = calls[id(host)] == calls[id(batch_norm)] == readers[id(x)] == 1
                if alone and _can_take(host, batch_norm, len(x.shape)):
                    yield id(host), batch_norm


def _nodes(graph: Functional) -> list[Any]:
    return [node for nodes in graph._nodes_by_depth.values() for node in nodes]


def _can_take(host: Any, batch_norm: BatchNorm, rank: int) -> bool:
    channels_first = getattr(host, "data_format", None) == "channels_first"
    return (
        type(host) in _HOSTS
        and host.activation is keras.activations.linear
        and batch_norm.axis % rank == (1 if channels_first else rank - 1)
    )


def _scale_and_shift(batch_norm: BatchNorm) -> tuple[np.ndarray, np.ndarray]:
    """What the layer does in inference mode: ``x · scale + shift``, each of shape (channels,), float64."""
    mean, variance = _float64(batch_norm.moving_mean), _float64(batch_norm.moving_variance)
    gamma = 1.0 if batch_norm.gamma is None else _float64(batch_norm.gamma)
    beta = 0.0 if batch_norm.beta is None else _float64(batch_norm.beta)
    scale = gamma / np.sqrt(variance + batch_norm.epsilon)
    return scale, beta - mean * scale


def _with_batch_norm(host: Any, batch_norm: BatchNorm) -> list[np.ndarray]:
    """The host's weights, the last kernel and the bias with the BatchNorm in them."""
    scale, shift = _scale_and_shift(batch_norm)
    *others, kernel = [_float64(weight) for weight in host.weights[: len(host.weights) - host.use_bias]]
    bias = _float64(host.bias) if host.use_bias else 0.0
    return [*others, kernel * _along_outputs(scale, host, kernel), bias * scale + shift]


def _along_outputs(scale: np.ndarray, host: Any, kernel: np.ndarray) -> np.ndarray:
    """The scale in a shape that fits the kernel's output channels."""
    if isinstance(host, _TRANSPOSED):
        return scale[:, None]  # (…, outputs, inputs)
    if isinstance(host, _DEPTHWISE):
        return scale.reshape(kernel.shape[-2:])  # (…, inputs, outputs of each)
    return scale


def _scaling(batch_norm: BatchNorm) -> layers.Layer:
    """A layer that scales and shifts channels as BatchNorm does; its weights are still to be filled in."""
    node = batch_norm._inbound_nodes[0]
    shape = node.input_tensors[0].shape
    rank, axis = len(shape), batch_norm.axis % len(shape)
    _refuse_inexpressible(batch_norm, axis, node.arguments.kwargs.get("mask"))
    common = {"name": batch_norm.name, "dtype": batch_norm.dtype_policy}
    if axis == rank - 1 and rank in _SCALINGS:
        return _SCALINGS[rank](1, **common)
    letters = string.ascii_lowercase[:rank]
    equation = f"{letters},{letters[axis]}->{letters}"
    return layers.EinsumDense(equation, output_shape=shape[1:], bias_axes=letters[axis], **common)


def _refuse_inexpressible(batch_norm: BatchNorm, axis: int, mask: Any) -> None:
    if axis == 0:
        raise ValueError(f"layer {batch_norm.name}: received axis 0, that of the batch, expected one of channels")
    if mask is not None:
        expected = "one without where there is no Dense layer to fold into"
        raise ValueError(f"layer {batch_norm.name}: received an input with a mask, expected {expected}")


def _float64(variable: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(variable).astype(np.float64)
