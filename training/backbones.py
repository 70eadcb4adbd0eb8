"""Pretrained feature extractors that take plain pixels, whatever scaling their weights expect."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from keras import layers, ops

from training.efficientnet_lite0 import efficientnet_lite0, imagenet_file, load_torch_weights
from training.errors import ConfigError, received

IMAGENET = "imagenet"
LITE0 = "efficientnet_lite0"
_TORCH = {".pth", ".pt"}
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class _Application:
    """A model of keras.applications, and what its ImageNet weights expect of pixels (`preprocess_input`'s mode).

    `blocks` matches how the names of a block's layers begin; inception_v3 names only the one that ends a block.
    """

    constructor: str
    scaling: str
    blocks: str
    least_size: int = 32
    file_scaling: str | None = None

    @property
    def scaling_of_file(self) -> str:
        return self.file_scaling or self.scaling


_APPLICATIONS = {
    "resnet50": _Application("ResNet50", "caffe", r"conv\d+_block\d+"),
    "vgg16": _Application("VGG16", "caffe", r"block\d+"),
    "mobilenet_v2": _Application("MobileNetV2", "tf", r"expanded_conv|block_\d+"),
    "inception_v3": _Application("InceptionV3", "tf", r"mixed\d+$", least_size=75),
    "efficientnet_b0": _Application("EfficientNetB0", "inside", r"block\d+[a-z]", file_scaling="efficientnet"),
    "densenet121": _Application("DenseNet121", "torch", r"conv\d+_block\d+"),
}
_BLOCKS = {LITE0: r"block\d+[a-z]"} | {name: application.blocks for name, application in _APPLICATIONS.items()}
BACKBONES = (LITE0, *_APPLICATIONS)


def build_backbone(name: str, input_size: int, weights: str | None) -> keras.Model:
    """A feature extractor; what trains is the caller's choice.

    Args:
        name: one of BACKBONES.
        input_size: side of the square input, in pixels.
        weights: "imagenet", the path of a weights file (.h5, .weights.h5, or .pth for efficientnet_lite0) whose
            inputs were scaled as ImageNet's were, or None for random ones.

    Returns:
        A model from pixels (n, input_size, input_size, 3), 0…255, to a feature map (n, h, w, c). It consists of
        built-in layers and operations, so it saves and loads in Keras' safe mode.

    Raises:
        ConfigError: an unknown name, a size too small for it, or weights that cannot be had.
    """
    if name not in BACKBONES:
        raise ConfigError(received("model.backbone", name, f"one of {', '.join(BACKBONES)}"))
    if weights and weights != IMAGENET and not Path(weights).is_file():
        raise ConfigError(received("model.weights", weights, "'imagenet', an existing file, an s3:// URI or null"))
    return _lite0(input_size, weights) if name == LITE0 else _application(name, input_size, weights)


def blocks(model: keras.Model, name: str) -> list[list[keras.layers.Layer]]:
    """The layers of the backbone `name` by block, from the input on.

    A layer between two blocks belongs to the later one, and what follows the last block to that. Folding BatchNorm and
    saving keep the names, so they keep the blocks.
    """
    found: dict[str, list[keras.layers.Layer]] = {}
    between: list[keras.layers.Layer] = []
    for layer in model.layers:
        between.append(layer)
        if match := re.match(_BLOCKS[name], layer.name):
            found.setdefault(match[0], []).extend(between)
            between = []
    found[next(reversed(found))].extend(between)
    return list(found.values())


def _lite0(input_size: int, weights: str | None) -> keras.Model:
    model = efficientnet_lite0(input_size)
    if weights == IMAGENET:
        load_torch_weights(model, imagenet_file())
    elif weights and Path(weights).suffix in _TORCH:
        load_torch_weights(model, weights)
    elif weights:
        _load_file(model, weights)
    return model


def _application(name: str, input_size: int, weights: str | None) -> keras.Model:
    application = _APPLICATIONS[name]
    if input_size < application.least_size:
        raise ConfigError(received("model.input_size", input_size, f"at least {application.least_size} for {name}"))
    pixels = keras.Input((input_size, input_size, 3), name="pixels")
    from_file = bool(weights) and weights != IMAGENET
    scaled = _scaled(pixels, application.scaling_of_file if from_file else application.scaling)
    model = keras.Model(pixels, _constructed(application, scaled, None if from_file else weights).output, name=name)
    if weights and from_file:
        _load_file(model, weights)
    return model


def _constructed(application: _Application, scaled: Any, weights: str | None) -> keras.Model:
    constructor = getattr(keras.applications, application.constructor)
    try:
        # The shape is given again because MobileNetV2 picks its weights by it.
        return constructor(include_top=False, input_tensor=scaled, input_shape=scaled.shape[1:], weights=weights)
    except Exception as error:
        if weights is None:
            raise
        # Keras downloads the weights, and says that it could not with a bare Exception.
        expected = f"a reachable download of {application.constructor}'s weights ({' '.join(str(error).split())})"
        remedy = "Download them elsewhere and give the file's path or s3:// URI, or use efficientnet_lite0."
        raise ConfigError(received("model.weights", weights, expected), remedy=remedy) from None


def _load_file(model: keras.Model, path: str) -> None:
    try:
        model.load_weights(path)
    except Exception as error:  # noqa: BLE001 Keras and h5py raise almost anything for a file that does not fit
        expected = f"a weights file of {model.name} ({' '.join(str(error).split())[:200]})"
        raise ConfigError(received("model.weights", path, expected)) from None


def _scaled(pixels: Any, scaling: str) -> Any:
    """What `keras.applications.imagenet_utils.preprocess_input` does, in operations that serialise."""
    if scaling == "caffe":
        mean = [-103.939, -116.779, -123.68]
        return layers.Rescaling([1.0, 1.0, 1.0], offset=mean, name="rescaling")(ops.take(pixels, [2, 1, 0], axis=-1))
    if scaling == "tf":
        return layers.Rescaling(1 / 127.5, offset=-1.0, name="rescaling")(pixels)
    if scaling == "efficientnet":
        # Keras puts a second scaling, by 1/√deviation, behind its own when asked for "imagenet" but not for a file.
        factors = [deviation**-0.5 for deviation in _DEVIATION]
        offset = [255 * mean * (1 - factor) for mean, factor in zip(_MEAN, factors, strict=True)]
        return layers.Rescaling(factors, offset=offset, name="rescaling")(pixels)
    if scaling == "torch":
        offset = [-mean / deviation for mean, deviation in zip(_MEAN, _DEVIATION, strict=True)]
        return layers.Rescaling([1 / (255 * d) for d in _DEVIATION], offset=offset, name="rescaling")(pixels)
    return pixels
