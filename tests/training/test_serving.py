import keras
import numpy as np

from tests.training.models import images
from training.network import from_bytes, to_bytes
from training.preprocessing import shrink
from training.serving import serving_model


def classifier():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x))


def test_a_served_model_takes_any_size_and_answers_at_the_natural_rate():
    x = np.clip(images(4)[0] * 20, 0, 255).astype(np.uint8).repeat(3, axis=1).repeat(2, axis=2)
    plain = classifier()(shrink(x, 12)).numpy()
    served = from_bytes(to_bytes(serving_model(classifier(), 12, (np.log(0.8 / 0.5), np.log(0.2 / 0.5)))))
    answers = served(x).numpy()
    odds = plain / (1 - plain) * (0.2 / 0.8)
    np.testing.assert_allclose(answers, odds / (1 + odds), rtol=1e-5)
    assert served.layers[-1].layers[-1].activation is keras.activations.sigmoid
