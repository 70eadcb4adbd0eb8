"""What the model would answer were it evaluated on mini-batch statistics: measured to compare, never served."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from training.batchnorm import learning_layers
from training.gap import Telescope
from training.logits import answered
from training.metrics import ranking
from training.rows import Array
from training.sampling import Prior


def mini_batches(images: int, batch_size: int, seed: int) -> np.ndarray:
    """Which images share a batch, indices of shape (batches, batch_size).

    An image's answer depends on which others share its batch, so the order is drawn from `seed`: sorted images would
    bring batches of one class. The last batch is filled up with the first images, so that every batch has the size of
    training's.
    """
    order = np.random.default_rng(seed).permutation(images)
    return np.resize(order, (-(-images // batch_size), batch_size))


def mini_batch_answers(telescope: Telescope, batches: Sequence[Array]) -> np.ndarray | None:
    """Logits (n, outputs), each batch normalised by its own statistics; None where no BatchNorm layer learns.

    None, too, where there are no batches.
    """
    if not batches or not learning_layers(telescope.model):
        return None
    return answered(telescope.on_batch_statistics, map(np.asarray, batches))


def mini_batch_statistics(
    answers: np.ndarray, y: np.ndarray, *, batch_size: int, prior: Prior, seed: int
) -> dict[str, Any] | None:
    """Loss in nats and ROC AUC of the answers, without the second ones to what filled up the last batch.

    Args:
        answers: logits (n, outputs) of the `mini_batches`, in order.
        y: class numbers of the images, in theirs.
        prior: the correction that the model is served with.

    Returns:
        Null where an answer is not finite.
    """
    logits = prior.corrected(answers[: len(y)])
    if not np.isfinite(logits).all():
        return None
    shown = mini_batches(len(y), batch_size, seed).ravel()[: len(y)]
    return {"batch_size": batch_size, "test": ranking(logits, y[shown])}
