import keras
import numpy as np

from tests.training.models import images
from training.logits import inference_logits
from training.network import from_bytes, to_bytes
from training.preprocessing import shrink
from training.sampling import Prior
from training.serving import correct_prior, serving_model


def classifier():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x))


def test_a_served_model_takes_any_size_and_answers_at_the_natural_rate():
    x = np.clip(images(4)[0] * 20, 0, 255).astype(np.uint8).repeat(3, axis=1).repeat(2, axis=2)
    plain = classifier()(shrink(x, 12)).numpy()
    prior = Prior(shift=(np.log(0.8 / 0.5), np.log(0.2 / 0.5)), method="analytic")
    served = from_bytes(to_bytes(serving_model(classifier(), 12, prior)))
    answers = served(x).numpy()
    odds = plain / (1 - plain) * (0.2 / 0.8)
    np.testing.assert_allclose(answers, odds / (1 + odds), rtol=1e-5)
    assert served.layers[-1].layers[-1].activation is keras.activations.sigmoid


def test_what_is_exported_is_what_was_evaluated():
    prior = Prior(shift=(0.0, -1.7), method="fitted_on_validation")
    plain, corrected = classifier(), classifier()
    x = np.random.default_rng(0).uniform(0, 255, (6, 12, 12, 3)).astype(np.float32)
    expected = prior.corrected(inference_logits(plain)(x).numpy())
    correct_prior(corrected, prior)
    np.testing.assert_allclose(inference_logits(corrected)(x).numpy(), expected, rtol=1e-6)


def test_each_of_several_classes_has_its_own_shift():
    prior = Prior(shift=(0.1, -0.2, 0.3), method="analytic")
    softmax = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, activation="softmax")])
    correct_prior(softmax, prior)
    np.testing.assert_allclose(softmax.layers[-1].bias.numpy(), prior.shift)
    np.testing.assert_array_equal(prior.corrected(np.zeros((2, 3))), [prior.shift] * 2)
