import hashlib
from pathlib import Path

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf

from tests.training.models import small_network
from training.config import ModelConfig
from training.errors import NightshiftError
from training.exports import LIMITS, export, largest_differences
from training.images import decode
from training.network import build_model
from training.preprocessing import to_pixels
from training.sampling import Prior
from training.serving import serving_model

SIZE = 12


@pytest.fixture(scope="module")
def images(few_cells):
    """Eight real cells, each cut to a size of its own."""
    paths = sorted((few_cells / "images").iterdir())[:8]
    return [decode(path.read_bytes())[: 300 - 11 * n, : 300 - 29 * n] for n, path in enumerate(paths)]


def served(classifier, size=SIZE):
    """The served model, and what the classifier says of images under the prior, from pixels made for training."""
    outputs = classifier.output_shape[-1]
    prior = Prior(shift=tuple(0.3 * n for n in range(max(outputs, 2))), method="analytic")
    model = serving_model(classifier, size, prior)
    return model, lambda images: classifier(np.stack([to_pixels(image, size) for image in images])).numpy()


@pytest.fixture(scope="module")
def exported(images):
    model, answers = served(small_network())
    return export(model, images, answers(images)), answers


def written(exports, folder: Path) -> Path:
    for name, content in exports.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_every_format_answers_for_raw_images_in_its_own_runtime(exported, images, tmp_path):
    exports, answers = exported
    folder = written(exports, tmp_path)
    model = keras.saving.load_model(folder / "model.keras", safe_mode=True)
    signature = tf.saved_model.load(folder / "saved_model").signatures["serving_default"]
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    for image, expected in zip(images, answers(images), strict=True):
        batch = image[None].repeat(2, axis=0)
        found = [
            model(batch),
            signature(images=tf.constant(batch))["probability"],
            session.run(["probability"], {"images": batch})[0],
        ]
        for answer in found:
            np.testing.assert_allclose(answer, [expected, expected], atol=1e-5)


def test_what_is_reported_is_what_was_found(exported):
    exports, _ = exported
    assert set(exports.differences) == {"model.keras", "saved_model", "model.onnx"}
    assert all(0 <= worst <= LIMITS[form] for form, worst in exports.differences.items())
    assert exports.report["images"] == exports.images == 8
    assert exports.sha256["model.onnx"] == hashlib.sha256(exports.files["model.onnx"]).hexdigest()
    assert exports.sha256.keys() == exports.files.keys()
    assert {name.split("/")[0] for name in exports.files} == set(exports.differences)


@pytest.mark.parametrize("error", [1e-4, np.nan])
def test_a_difference_is_refused_and_told(images, error):
    model, answers = served(small_network(classes=3))
    expected = answers(images)
    expected[5, 1] += error
    with pytest.raises(NightshiftError, match=r"model\.keras: received 'a difference of .* at most 1e-05") as refused:
        export(model, images, expected)
    assert (refused.value.exit_code, refused.value.cause) == (1, "export")


def test_the_largest_difference_is_of_any_image_and_class(images):
    expected = np.full((len(images), 3), 0.25)
    answers = {
        "same": lambda batch: expected[:1],
        "once": lambda batch: expected[:1] + (batch.shape[1] == images[-1].shape[0]) * np.array([0, -0.5, 0.1]),
    }
    assert largest_differences(answers, images, expected) == {"same": 0, "once": 0.5}


def test_what_a_normalization_learned_is_exported(images):
    """Its tensors would become inputs of the ONNX graph, which then answers nothing; EfficientNet-B0 has one."""
    inputs = keras.Input((SIZE, SIZE, 3))
    scaled = keras.layers.Normalization()
    scaled.adapt(np.random.default_rng(0).uniform(0, 255, (16, SIZE, SIZE, 3)))
    x = keras.layers.GlobalAveragePooling2D()(scaled(inputs))
    model, answers = served(keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x)))
    export(model, images, answers(images))


@pytest.mark.soak
@pytest.mark.parametrize(
    ("backbone", "policy", "classes"),
    [
        ("efficientnet_lite0", "trainable", 3),
        ("efficientnet_lite0", "batch_norm_free", 2),
        ("resnet50", "batch_norm_free", 3),
        ("vgg16", "trainable", 2),
        ("mobilenet_v2", "frozen", 2),
        ("inception_v3", "trainable", 3),
        ("efficientnet_b0", "trainable", 2),
        ("densenet121", "trainable", 2),
    ],
)
def test_every_backbone_is_exported(images, backbone, policy, classes):
    keras.utils.set_random_seed(0)
    size = 80 if backbone == "inception_v3" else 48
    weights = "imagenet" if backbone == "efficientnet_lite0" else None
    config = ModelConfig(backbone=backbone, weights=weights, policy=policy, input_size=size)
    model, answers = served(build_model(config, classes), size)
    exports = export(model, images, answers(images))
    assert exports.images == len(images)
