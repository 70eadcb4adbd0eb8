import keras
import numpy as np
import pytest

from tests.conftest import ROOT
from tests.training.models import images
from training.backbones import blocks, build_backbone
from training.batchnorm import batch_norm_layers, learning_layers
from training.config import ModelConfig, load_config
from training.errors import ConfigError
from training.network import apply_policy, backbone_of, build_model, from_bytes, head_alone, to_bytes
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


@pytest.fixture(scope="module")
def lite0():
    """One model that policies are applied to in turn."""
    return build_model(small())


@pytest.mark.parametrize(
    ("settings", "convolutions", "batch_norms"),
    [
        ({"policy": "trainable"}, 49, 49),
        ({"policy": "frozen_batch_norm"}, 49, 0),
        ({"policy": "frozen"}, 0, 0),
        ({"policy": "features"}, 0, 0),
        ({"policy": "trainable", "trainable_layers": "head"}, 0, 0),
        ({"policy": "trainable", "trainable_layers": "head_and_batch_norm"}, 0, 49),
        ({"policy": "trainable", "trainable_layers": "last_blocks"}, 7, 7),  # two blocks of three, and the last one
        ({"policy": "frozen_batch_norm", "trainable_layers": "last_blocks", "trainable_blocks": 1}, 4, 0),
        ({"policy": "trainable", "trainable_layers": "last_blocks", "trainable_blocks": 16}, 49, 49),
    ],
)
def test_what_trains(settings, convolutions, batch_norms, lite0):
    """Whatever trained before, in the model as in one that was loaded."""
    config = small(**settings)
    apply_policy(lite0, config)
    loaded = from_bytes(to_bytes(lite0))
    counts = [trains(lite0), trains(loaded)]
    apply_policy(lite0, config)
    apply_policy(loaded, config)
    assert [*counts, trains(lite0), trains(loaded)] == [(convolutions, batch_norms)] * 4
    assert len(lite0.layers[-1].trainable_variables) == 2


def trains(model: keras.Model) -> tuple[int, int]:
    """How many of the base's convolutions and BatchNorms do."""
    weights = backbone_of(model).trainable_variables
    gammas = sum(variable.name == "gamma" for variable in weights)
    assert gammas == len(learning_layers(model))
    return sum("kernel" in variable.name for variable in weights), gammas


def test_more_blocks_than_there_are_is_one_line(lite0):
    expected = "model.trainable_blocks: received 17, expected at most 16 for efficientnet_lite0"
    with pytest.raises(ConfigError, match=expected):
        apply_policy(lite0, small(trainable_layers="last_blocks", trainable_blocks=17))


@pytest.mark.parametrize(("layers", "count"), [(None, 49), ("last_blocks", 7), ("head", 0)])
def test_batch_norm_free_computes_the_same_and_trains(layers, count):
    x = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3)).astype(np.float32)
    keras.utils.set_random_seed(0)
    original = backbone_of(build_model(small(weights="imagenet")))
    keras.utils.set_random_seed(0)
    config = small(weights="imagenet", policy="batch_norm_free", trainable_layers=layers)
    model = build_model(config)
    expected = original(x, training=False).numpy()
    np.testing.assert_allclose(backbone_of(model)(x), expected, atol=1e-5 * np.abs(expected).max())
    assert batch_norm_layers(model) == [] and trains(model) == (count, 0)
    assert len(blocks(backbone_of(from_bytes(to_bytes(model))), "efficientnet_lite0")) == 16


def test_a_network_without_batch_norm_passes_as_it_is():
    original = build_backbone("vgg16", 32, None)
    model = build_model(small(backbone="vgg16", policy="batch_norm_free"))
    assert [layer.name for layer in backbone_of(model).layers] == [layer.name for layer in original.layers]


@pytest.mark.parametrize("layers", ["head_and_batch_norm", "last_blocks"])
def test_what_does_not_train_does_not_move(layers, lite0):
    apply_policy(lite0, small(trainable_layers=layers))
    assert moved(lite0, "kernel") == {variable.path for variable in kernels(lite0) if variable.trainable}
    assert any(moved(lite0, "moving_mean"))


def test_only_the_head_moves_while_it_is_alone(lite0):
    apply_policy(lite0, small(trainable_layers="last_blocks"))
    before = trains(lite0)
    with head_alone(lite0):
        assert moved(lite0, "") == {variable.path for variable in lite0.layers[-1].variables}
    assert trains(lite0) == before == (7, 7)


def moved(model: keras.Model, name: str) -> set[str]:
    """The weights whose bytes one step of training changes."""
    x, y = images(8)
    pixels = np.tile(x, (1, 3, 3, 1))[:, :32, :32] * 20
    before = {variable.path: variable.numpy().tobytes() for variable in model.weights}
    model.compile("adam", "binary_crossentropy", run_eagerly=True)  # quicker than tracing for one step
    model.fit(pixels, y[:, None], batch_size=8, verbose=0)
    return {
        variable.path
        for variable in model.weights
        if name in variable.path and variable.numpy().tobytes() != before[variable.path]
    }


def kernels(model: keras.Model) -> list[keras.Variable]:
    return [variable for variable in model.weights if "kernel" in variable.path]


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


def test_more_than_two_classes_have_a_softmax_unit_each():
    """Everything before it is the two-class network, weight for weight."""
    models = []
    for classes in (2, 4):
        keras.utils.set_random_seed(0)
        models.append(build_model(small(head_units=(8,)), classes))
    two, four = models
    assert (two.output_shape, four.output_shape) == ((None, 1), (None, 4))
    assert [model.layers[-1].name for model in models] == ["probability"] * 2
    for one, other in zip(two.weights[:-2], four.weights[:-2], strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    x = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(four(x, training=False).numpy().sum(axis=1), 1, rtol=1e-6)
