"""Folded models against the originals, whose statistics are far from those a new layer has."""

import keras
import numpy as np
import pytest
from keras import layers

from tests.training.models import small_network, values
from training.backbones import BACKBONES, build_backbone
from training.batchnorm import batch_norm_layers, fold_batch_norm

BatchNorm = layers.BatchNormalization


def trained(model: keras.Model, seed: int = 0) -> keras.Model:
    """The model with BatchNorm, and biases, as some training could have left them."""
    random = np.random.default_rng(seed)
    for layer in batch_norm_layers(model):
        for variable in layer.weights:
            low, high = (-0.5, 0.5) if variable.name in ("beta", "moving_mean") else (0.5, 2)
            variable.assign(random.uniform(low, high, variable.shape))
    for layer in model._flatten_layers():
        if getattr(layer, "bias", None) is not None:
            layer.bias.assign(random.normal(size=layer.bias.shape))
    return model


def run(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(x, training=False)).astype(np.float64)


def assert_equal(model: keras.Model, *, atol: float = 1e-5) -> tuple[keras.Model, np.ndarray]:
    """Fold and compare on noise; gives the folded model and the noise."""
    before = values(trained(model))
    x = np.random.default_rng(1).normal(size=(4, *model.inputs[0].shape[1:])).astype(np.float32)
    folded, expected = fold_batch_norm(model), run(model, x)
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(run(folded, x), expected, atol=atol * np.abs(expected).max())
    assert batch_norm_layers(folded) == []
    assert all(np.array_equal(a, b) for a, b in zip(values(model), before, strict=True))
    return folded, x


def assert_folds(model: keras.Model, tmp_path, *, atol: float = 1e-5) -> keras.Model:
    """Fold, compare, and once more after saving; gives the folded model."""
    folded, x = assert_equal(model, atol=atol)
    folded.save(tmp_path / "folded.keras")
    loaded = keras.saving.load_model(tmp_path / "folded.keras", safe_mode=True)
    np.testing.assert_array_equal(run(loaded, x), run(folded, x))
    return folded


def names(model: keras.Model) -> list[str]:
    return [layer.name for layer in model._flatten_layers() if not isinstance(layer, layers.InputLayer)]


def test_a_dense_layer_takes_it_in_as_the_formula_says():
    model = trained(keras.Sequential([keras.Input((5,)), layers.Dense(3, name="dense"), BatchNorm()]))
    kernel, bias, gamma, beta, mean, variance = (weight.astype(np.float64) for weight in model.get_weights())
    factor = gamma / np.sqrt(variance + 1e-3)
    folded = fold_batch_norm(model)
    assert [layer.name for layer in folded.layers] == ["dense"]
    np.testing.assert_allclose(folded.get_weights()[0], kernel * factor, rtol=1e-7)
    np.testing.assert_allclose(folded.get_weights()[1], (bias - mean) * factor + beta, rtol=1e-6)


def test_sequential_and_nested_models_keep_their_kind_and_names(tmp_path):
    model = small_network()
    folded = assert_folds(model, tmp_path)
    assert [name for name in names(model) if name not in ("bn1", "bn2")] == names(folded)
    assert type(folded) is type(folded.layers[0]) is keras.Sequential
    assert len(folded.trainable_weights) == len(folded.weights) == 6


LINEAR = {
    "Conv1D": ((9, 4), lambda: layers.Conv1D(6, 3, groups=2)),
    "Conv2D": ((9, 9, 4), lambda: layers.Conv2D(6, 3, use_bias=False)),
    "Conv3D": ((5, 5, 5, 2), lambda: layers.Conv3D(3, 3)),
    "DepthwiseConv1D": ((9, 4), lambda: layers.DepthwiseConv1D(3, depth_multiplier=2)),
    "DepthwiseConv2D": ((9, 9, 4), lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)),
    "SeparableConv1D": ((9, 4), lambda: layers.SeparableConv1D(5, 3)),
    "SeparableConv2D": ((9, 9, 4), lambda: layers.SeparableConv2D(5, 3, use_bias=False)),
    "Conv1DTranspose": ((9, 4), lambda: layers.Conv1DTranspose(5, 3)),
    "Conv2DTranspose": ((5, 5, 4), lambda: layers.Conv2DTranspose(5, 3, use_bias=False)),
    "Conv3DTranspose": ((4, 4, 4, 2), lambda: layers.Conv3DTranspose(3, 2)),
    "Dense": ((4,), lambda: layers.Dense(5, use_bias=False)),
}


@pytest.mark.parametrize("kind", LINEAR)
def test_every_linear_layer_takes_it_in(kind, tmp_path):
    shape, make = LINEAR[kind]
    layer = make()
    folded = assert_folds(keras.Sequential([keras.Input(shape), layer, BatchNorm()]), tmp_path)
    assert [found.name for found in folded.layers] == [layer.name]
    assert folded.layers[0].get_config() == layer.get_config() | {"use_bias": True}


@pytest.mark.parametrize(
    "settings", [{"scale": False}, {"center": False}, {"scale": False, "center": False}, {"renorm": True}]
)
def test_whatever_the_layer_is_made_of(settings, tmp_path):
    for first in ([layers.Dense(5)], []):
        model = keras.Sequential([keras.Input((4,)), *first, BatchNorm(**settings), layers.ReLU()])
        assert len(assert_folds(model, tmp_path).layers) == 2


@pytest.mark.parametrize(
    ("shape", "axis", "kind"),
    [
        ((4,), -1, "EinsumDense"),
        ((7, 4), -1, "DepthwiseConv1D"),
        ((7, 7, 4), 3, "DepthwiseConv2D"),
        ((4, None, 7), 1, "EinsumDense"),
        ((3, 3, 3, 4), -1, "EinsumDense"),
    ],
)
def test_on_the_input_it_becomes_a_scale_and_shift_that_trains(shape, axis, kind):
    model = trained(keras.Sequential([keras.Input(shape), BatchNorm(axis=axis, name="scaled"), layers.ReLU()]))
    folded = fold_batch_norm(model)
    x = np.random.default_rng(0).normal(size=(2, *(side or 5 for side in shape))).astype(np.float32)
    np.testing.assert_allclose(run(folded, x), run(model, x), atol=1e-6)
    assert type(folded.layers[0]).__name__ == kind
    assert [layer.name for layer in folded.layers] == [layer.name for layer in model.layers]
    assert folded.count_params() == len(folded.trainable_weights) * 4 == 8


def test_a_pre_activation_network(tmp_path):
    """As in DenseNet: BatchNorm after a concatenation, and convolutions with more than one reader."""
    pixels = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="stem")(pixels)
    for number in range(2):
        y = layers.ReLU()(BatchNorm(name=f"pre{number}")(x))
        y = layers.Conv2D(4, 3, padding="same", use_bias=False, name=f"conv{number}")(y)
        y = layers.ReLU()(BatchNorm(name=f"post{number}")(y))
        x = layers.Concatenate()([x, layers.Conv2D(4, 3, padding="same", name=f"grow{number}")(y)])
    folded = assert_folds(keras.Model(pixels, layers.GlobalMaxPooling2D()(x)), tmp_path)
    assert {"pre0", "pre1"} <= set(names(folded)) and not {"post0", "post1"} & set(names(folded))


def test_what_is_shared_or_read_twice_is_not_folded(tmp_path):
    one, two = keras.Input((4,)), layers.Dense(5, activation="relu", name="active")
    shared, norm, read = layers.Dense(4, name="shared"), BatchNorm(name="norm"), layers.Dense(3, name="read")(one)
    outputs = [
        norm(shared(shared(one))),
        norm(layers.Dense(4)(one)),
        BatchNorm(name="after_active")(two(one)),
        layers.Add()([BatchNorm(name="beside")(read), read]),
    ]
    folded = assert_folds(keras.Model(one, layers.Concatenate()(outputs)), tmp_path)
    assert {"norm", "after_active", "beside"} <= set(names(folded))
    assert len(folded.get_layer("norm")._inbound_nodes) == 2


def test_a_layers_own_output_stays_what_it_was():
    x = keras.Input((4,), name="x")
    y = layers.Dense(3)(x)
    model = trained(keras.Model({"x": x}, {"raw": y, "norm": BatchNorm()(y)}))
    inputs = {"x": np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)}
    expected, found = model(inputs, training=False), fold_batch_norm(model)(inputs, training=False)
    for name in ("raw", "norm"):
        np.testing.assert_allclose(found[name].numpy(), expected[name].numpy(), atol=1e-6)


def test_a_model_called_twice_and_a_layer_shared_between_models():
    """Keras cannot load a file of such a model, folded or not."""
    shared = layers.Dense(4, name="shared")
    block = keras.Sequential([keras.Input((4,)), layers.Dense(4), BatchNorm(), shared], name="block")
    x = keras.Input((4,))
    model = keras.Model(x, BatchNorm(name="outer")(shared(block(block(x)))))
    folded, _ = assert_equal(model)
    assert folded.get_layer("shared") is folded.get_layer("block").get_layer("shared")
    assert "outer" in names(folded)


def test_without_batch_norm_it_is_a_copy_that_trains(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, trainable=False), layers.Dropout(0.5)])
    model.compile("sgd", "mse")
    folded = assert_folds(model, tmp_path)
    assert folded is not model and folded.layers[0] is not model.layers[0]
    assert len(folded.trainable_weights) == 2 and not model.trainable_weights
    assert not folded.compiled


@pytest.mark.parametrize(("policy", "atol"), [("mixed_float16", 5e-3), ("mixed_bfloat16", 4e-2), ("bfloat16", 6e-2)])
def test_short_floats_stay_short(policy, atol, tmp_path):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, dtype=policy),
            BatchNorm(dtype=policy),
            layers.ReLU(dtype=policy),
            BatchNorm(dtype=policy),
        ]
    )
    folded = assert_folds(model, tmp_path, atol=atol)
    assert {layer.dtype_policy.name for layer in folded.layers} == {policy}


class Own(keras.Model):
    def __init__(self):
        super().__init__(name="own")
        self.norm = BatchNorm()

    def call(self, x, training=None):
        return self.norm(x, training=training)


def masked() -> keras.Model:
    return keras.Sequential([keras.Input((6, 2)), layers.Masking(), BatchNorm(name="norm"), layers.LSTM(2)])


def hidden() -> keras.Model:
    return keras.Sequential([keras.Input((6, 4)), layers.TimeDistributed(BatchNorm(), name="wrapped")])


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (Own, "layer own: received a Own, expected a Functional or Sequential model"),
        (lambda: keras.Sequential([keras.Input((4,)), Own()]), "layer own: received a Own"),
        (hidden, "layer wrapped: received a TimeDistributed"),
        (masked, "layer norm: received an input with a mask"),
        (lambda: keras.Sequential([layers.Dense(2), BatchNorm()], name="new"), "layer new: received a model without"),
        (
            lambda: keras.Sequential([keras.Input((4,), 3), BatchNorm(axis=0, name="norm")]),
            "layer norm: received axis 0",
        ),
    ],
)
def test_what_it_cannot_do_is_one_line(model, line):
    with pytest.raises(ValueError, match=line) as caught:
        fold_batch_norm(model())
    assert "\n" not in str(caught.value)


def test_a_masked_sequence_folds_into_a_dense_layer(tmp_path):
    model = keras.Sequential([keras.Input((6, 2)), layers.Masking(), layers.Dense(3), BatchNorm(), layers.LSTM(2)])
    assert len(assert_folds(model, tmp_path).layers) == 3


QUICK = ("mobilenet_v2",)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.soak) for name in BACKBONES]
)
def test_backbones(name, tmp_path):
    """Up to what float32 rounds in the deepest of them; in float64 they agree to 1e-9 (see test_mechanics)."""
    keras.utils.set_random_seed(0)
    model = build_backbone(name, 64 if name in QUICK else 96, None)
    assert_folds(keras.Sequential([model, layers.GlobalAveragePooling2D()]), tmp_path, atol=1e-4)
