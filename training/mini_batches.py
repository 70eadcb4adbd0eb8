"""What the model would answer were it evaluated on mini-batch statistics: measured to compare, never served."""

from typing import Any

import keras
import numpy as np

from training.batchnorm import learning_layers
from training.gap import batch_statistics_logits
from training.metrics import ranking
from training.sampling import Prior


def mini_batch_statistics(
    model: keras.Model, x: np.ndarray, y: np.ndarray, *, batch_size: int, prior: Prior, seed: int
) -> dict[str, Any] | None:
    """Loss in nats and ROC AUC of images never trained on, each batch normalised by its own statistics.

    An image's answer then depends on which others share its batch, so the order is drawn from `seed`: sorted images
    would bring batches of one class. The last batch is filled up with the first images, whose second answers are
    dropped, so that every batch has the size of training's.

    Args:
        x, y: images, shape (n, …), and class numbers (n,).
        prior: the correction that the model is served with.

    Returns:
        Null where no BatchNorm layer learns, or an answer is not finite.
    """
    if not learning_layers(model):
        return None
    order = np.random.default_rng(seed).permutation(len(x))
    forward = batch_statistics_logits(model)
    batches = np.resize(order, (-(-len(x) // batch_size), batch_size))
    logits = prior.corrected(np.concatenate([np.asarray(forward(x[rows])) for rows in batches])[: len(x)])
    if not np.isfinite(logits).all():
        return None
    return {"batch_size": batch_size, "test": ranking(logits, y[order])}
