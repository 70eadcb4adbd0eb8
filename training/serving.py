"""The model that is served: uint8 images of any size in, the probability at the natural rate out."""

from collections.abc import Sequence

import keras

from training.logits import output_layer
from training.preprocessing import shrink


def serving_model(classifier: keras.Model, size: int, shift: Sequence[float]) -> keras.Model:
    """Wrap a trained classifier with its preprocessing and correct its prior.

    Args:
        classifier: takes pixels (n, size, size, 3); its output layer's bias is changed in place.
        shift: what to add to each class's logit (see `sampling.prior_shift`).

    Returns:
        A model from uint8 (n, height, width, 3) to probabilities; nothing follows the sigmoid or softmax.
    """
    correct_prior(classifier, shift)
    images = keras.Input((None, None, 3), dtype="uint8", name="images")
    return keras.Model(images, classifier(shrink(images, size)), name="served")


def correct_prior(classifier: keras.Model, shift: Sequence[float]) -> None:
    """Add the prior's shift to the output layer's bias: for one sigmoid unit, that of its log odds."""
    bias = output_layer(classifier).bias
    bias.assign_add([shift[1] - shift[0]] if bias.shape[0] == 1 else list(shift))
