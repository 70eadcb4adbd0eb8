"""The model that is served: uint8 images of any size in, the probability at the natural rate out."""

import keras

from training.logits import output_layer
from training.preprocessing import shrink
from training.sampling import Prior


def serving_model(classifier: keras.Model, size: int, prior: Prior) -> keras.Model:
    """Wrap a trained classifier with its preprocessing and correct its prior.

    Args:
        classifier: takes pixels (n, size, size, 3); its output layer's bias is changed in place.
        prior: the correction the model was evaluated with.

    Returns:
        A model from uint8 (n, height, width, 3) to probabilities; nothing follows the sigmoid or softmax.
    """
    correct_prior(classifier, prior)
    images = keras.Input((None, None, 3), dtype="uint8", name="images")
    return keras.Model(images, classifier(shrink(images, size)), name="served")


def correct_prior(classifier: keras.Model, prior: Prior) -> None:
    """Add the prior's shift to the output layer's bias."""
    bias = output_layer(classifier).bias
    bias.assign_add(prior.on_outputs(bias.shape[0]))
