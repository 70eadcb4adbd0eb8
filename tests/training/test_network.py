import keras
import numpy as np
import pytest

from tests.conftest import ROOT
from training.backbones import build_backbone
from training.batchnorm import batch_norm_layers, learning_layers
from training.config import ModelConfig, load_config
from training.network import build_model, from_bytes, to_bytes
from training.store import open_store


def small(**changes):
    return ModelConfig(**{"weights": None, "input_size": 32, **changes})


def test_roofs_is_the_seed_model_to_the_letter():
    """ResNet50, global average pooling, Dense 64 relu and Dropout 0.5 twice, Dense 1 sigmoid."""
    seed = load_config(ROOT / "dags" / "models" / "roofs.yaml").model
    model = build_model(seed.model_copy(update={"weights": None, "input_size": 32}))
    kinds = [type(layer).__name__ for layer in model.layers[2:]]
    assert kinds == ["GlobalAveragePooling2D", "Dense", "Dropout", "Dense", "Dropout", "Dense"]
    assert "conv5_block3_3_bn" in {layer.name for layer in batch_norm_layers(model)}
    head = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    assert [(layer.units, layer.activation.__name__) for layer in head] == [(64, "relu"), (64, "relu"), (1, "sigmoid")]
    assert {layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)} == {0.5}
    assert len(learning_layers(model)) == 53


@pytest.mark.parametrize(
    ("policy", "convolutions_train", "batch_norm_trains"),
    [("trainable", True, True), ("frozen_batch_norm", True, False), ("frozen", False, False)],
)
def test_policies(policy, convolutions_train, batch_norm_trains):
    model = build_model(small(policy=policy, batch_norm_momentum=0.9))
    kernels = [variable for variable in model.trainable_variables if "kernel" in variable.path]
    assert (len(kernels) > 1) == convolutions_train
    assert bool(learning_layers(model)) == batch_norm_trains
    assert {layer.momentum for layer in batch_norm_layers(model)} == {0.9}


def test_momentum_is_the_pretrained_networks_own_by_default():
    assert {layer.momentum for layer in batch_norm_layers(build_model(small()))} == {0.99}


def test_a_model_survives_its_file():
    model = build_model(small(policy="frozen_batch_norm"))
    loaded = from_bytes(to_bytes(model))
    x = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_array_equal(model(x, training=False).numpy(), loaded(x, training=False).numpy())
    assert learning_layers(loaded) == []


def test_weights_may_live_on_s3(s3, tmp_path):
    keras.utils.set_random_seed(0)
    donor = build_backbone("efficientnet_lite0", 32, None)
    donor.save_weights(tmp_path / "w.weights.h5")
    open_store(s3).write("w.weights.h5", (tmp_path / "w.weights.h5").read_bytes())
    model = build_model(small(weights=f"{s3}/w.weights.h5"))
    one, other = donor.get_weights(), model.layers[1].get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
