import keras
import numpy as np
import pytest

from training.logits import class_numbers, cross_entropies, in_batches, inference_logits, output_layer, probabilities


def test_logits_are_those_under_the_probabilities():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(1, "sigmoid")])
    x = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    logits = in_batches(inference_logits(model), x, 4)
    np.testing.assert_allclose(probabilities(logits), model.predict(x, verbose=0), rtol=1e-5)
    assert model.layers[-1].activation is keras.activations.sigmoid


def test_the_last_layer_is_found_in_nested_models():
    inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Activation("softmax", name="end")])
    assert output_layer(keras.Sequential([keras.Input((3,)), inner])).name == "end"


def test_other_endings_are_refused():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, "tanh", name="odd")])
    with pytest.raises(ValueError, match="received a last layer 'odd'"):
        output_layer(model)


def test_cross_entropy_is_exact_where_probabilities_saturate():
    np.testing.assert_allclose(cross_entropies(np.array([[800.0], [-800.0]]), np.array([0, 0])), [800, 0], atol=1e-12)


@pytest.mark.parametrize("labels", [np.array([2, 0]), np.array([[2], [0]]), np.eye(3)[[2, 0]]])
def test_categorical_equals_the_closed_form(labels):
    logits = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 5.0]])
    truth = [np.log(np.exp(row).sum()) - row[label] for row, label in zip(logits, (2, 0), strict=True)]
    np.testing.assert_allclose(cross_entropies(logits, labels), truth)
    np.testing.assert_array_equal(class_numbers(labels), [2, 0])
