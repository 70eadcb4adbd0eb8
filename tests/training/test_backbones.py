"""Backbones: the real ImageNet weights of Lite0, and random builds of the others."""

from pathlib import Path

import keras
import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from training.backbones import BACKBONES, blocks, build_backbone
from training.batchnorm import fold_batch_norm
from training.efficientnet_lite0 import efficientnet_lite0, imagenet_file, load_torch_weights
from training.errors import ConfigError

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3)).astype("float32")
BELL_COTE, STUPA, MONASTERY = 442, 832, 663


def batch_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    return [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]


def normalization(model: keras.Model) -> keras.layers.Normalization:
    return next(layer for layer in model.layers if isinstance(layer, keras.layers.Normalization))


def run(model: keras.Model, pixels: np.ndarray) -> np.ndarray:
    """Features in inference mode, without the seconds that tracing a graph takes."""
    return keras.ops.convert_to_numpy(model(pixels, training=False))


def test_lite0_knows_what_it_sees() -> None:
    model = efficientnet_lite0(224, include_top=True)
    load_torch_weights(model, imagenet_file())
    photo = keras.ops.image.resize(load_sample_image("china.jpg")[None].astype("float32"), (224, 224))
    logits = keras.ops.convert_to_numpy(model(photo))[0]
    assert list(logits.argsort()[::-1][:3]) == [BELL_COTE, STUPA, MONASTERY]


def test_lite0_is_the_pretrained_network_with_readable_layers() -> None:
    model = build_backbone("efficientnet_lite0", 96, "imagenet")
    assert model.output_shape == (None, 3, 3, 1280)
    layers = batch_norms(model)
    assert len(layers) == 49
    assert "block2b_expand_bn" in {layer.name for layer in layers}
    assert {(layer.momentum, layer.epsilon) for layer in layers} == {(0.99, 1e-3)}


def test_lite0_takes_weights_from_files(tmp_path: Path) -> None:
    model = build_backbone("efficientnet_lite0", 96, "imagenet")
    model.save_weights(tmp_path / "w.weights.h5")
    for path in (tmp_path / "w.weights.h5", imagenet_file()):
        again = build_backbone("efficientnet_lite0", 96, str(path))
        np.testing.assert_array_equal(run(again, PIXELS), run(model, PIXELS))


@pytest.mark.parametrize("name", BACKBONES)
def test_saves_and_loads_in_safe_mode(name: str, tmp_path: Path) -> None:
    model = build_backbone(name, 96, None)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(run(loaded, PIXELS), run(model, PIXELS))
    assert len(model.output_shape) == 4
    assert not [layer.name for layer in model.layers if layer.name.startswith("_")]


BLOCKS = {
    "efficientnet_lite0": (16, "block1a", "block7a"),
    "resnet50": (16, "conv2_block1", "conv5_block3"),
    "vgg16": (5, "block1", "block5"),
    "mobilenet_v2": (17, "expanded_conv", "block_16"),
    "inception_v3": (11, "mixed0", "mixed10"),
    "efficientnet_b0": (16, "block1a", "block7a"),
    "densenet121": (58, "conv2_block1", "conv5_block16"),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_every_layer_is_in_one_block(name: str) -> None:
    model = build_backbone(name, 96, None)
    count, first, last = BLOCKS[name]
    found = blocks(model, name)
    assert len(found) == count
    assert first in {layer.name[: len(first)] for layer in found[0]}
    assert last in {layer.name[: len(last)] for layer in found[-1]}
    assert sorted(layer.name for block in found for layer in block) == sorted(layer.name for layer in model.layers)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "mobilenet_v2" else pytest.mark.soak) for name in BACKBONES]
)
def test_folding_keeps_blocks(name: str) -> None:
    model = build_backbone(name, 96, None)
    folded = fold_batch_norm(model)
    kept = {layer.name for layer in folded.layers}
    assert [names & kept for names in names_of(blocks(model, name))] == names_of(blocks(folded, name))


def names_of(found: list[list[keras.layers.Layer]]) -> list[set[str]]:
    return [{layer.name for layer in block} for block in found]


def test_what_lies_between_blocks_belongs_to_the_later_one() -> None:
    found = names_of(blocks(build_backbone("inception_v3", 96, None), "inception_v3"))
    assert {"pixels", "rescaling", "mixed0"} <= found[0] and "mixed9_0" in found[9] and "mixed9_1" in found[10]
    found = names_of(blocks(build_backbone("densenet121", 96, None), "densenet121"))
    assert "pool4_conv" in found[-16] and {"bn", "relu"} <= found[-1]


@pytest.mark.parametrize(
    ("name", "constructor", "module"),
    [
        ("vgg16", "VGG16", "vgg16"),
        ("mobilenet_v2", "MobileNetV2", "mobilenet_v2"),
        ("densenet121", "DenseNet121", "densenet"),
    ],
)
def test_scales_pixels_as_keras_does_and_takes_its_weights(
    name: str, constructor: str, module: str, tmp_path: Path
) -> None:
    original = getattr(keras.applications, constructor)(include_top=False, weights=None, input_shape=(96, 96, 3))
    original.save_weights(tmp_path / "w.weights.h5")
    scaled = getattr(keras.applications, module).preprocess_input(PIXELS.copy())
    expected = run(original, scaled)
    found = run(build_backbone(name, 96, str(tmp_path / "w.weights.h5")), PIXELS)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_efficientnet_b0_from_a_file_is_scaled_as_imagenet_is(tmp_path: Path) -> None:
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    original = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(96, 96, 3))
    normalization(original).set_weights([mean, deviation**2, np.array(1)])
    original.save_weights(tmp_path / "w.weights.h5")
    model = build_backbone("efficientnet_b0", 96, str(tmp_path / "w.weights.h5"))
    found = run(keras.Model(model.inputs, normalization(model).output), PIXELS)
    # keras.applications.efficientnet: normalise by the variance's root, then scale by 1/√deviation once more
    np.testing.assert_allclose(found, (PIXELS / 255 - mean) / deviation / np.sqrt(deviation), atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("resnet18", 96, None), "model.backbone: received 'resnet18', expected one of efficientnet_lite0, resnet50"),
        (("vgg16", 96, "missing.h5"), "model.weights: received 'missing.h5', expected 'imagenet', an existing file"),
        (("inception_v3", 64, None), "model.input_size: received 64, expected at least 75 for inception_v3"),
        (("efficientnet_lite0", 96, __file__), "expected a weights file of efficientnet_lite0"),
        (("vgg16", 96, __file__), "expected a weights file of vgg16"),
    ],
)
def test_says_in_one_line_what_cannot_be_built(arguments: tuple[str, int, str | None], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_backbone(*arguments)
    assert line in caught.value.message
    assert "\n" not in caught.value.message


def test_refuses_torch_weights_of_another_network() -> None:
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, name="logits")])
    with pytest.raises(ConfigError, match="expected weights of EfficientNet-Lite0"):
        load_torch_weights(model, imagenet_file())
