"""Which test images the served model gets most wrong; pure."""

from dataclasses import dataclass

import numpy as np

from training.logits import cross_entropies, probabilities

MOST = 12


@dataclass(frozen=True)
class Mistake:
    """An image whose decided class is not its label.

    Attributes:
        path: below the data set's URI, as others named it.
        probability: what the model gave the decided class.
        loss: in nats.
        thumbnail: a small JPEG; None where the image is no longer there or no longer the same.
    """

    path: str
    label: str
    decided: str
    probability: float
    loss: float
    thumbnail: bytes | None = None


def decisions(scores: np.ndarray, threshold: float | None) -> np.ndarray:
    """The decided class numbers (n,) of probabilities (n, outputs).

    One output decides for the positive class at or above the threshold, of several the largest decides.
    """
    if scores.shape[1] == 1:
        return (scores[:, 0] >= (0.5 if threshold is None else threshold)).astype(np.int64)
    return scores.argmax(axis=1)


def worst(logits: np.ndarray, labels: np.ndarray, threshold: float | None, most: int = MOST) -> np.ndarray:
    """Indices of at most so many wrongly decided images, the highest loss first.

    Args:
        logits: as served, (n, outputs): of probabilities that are 1 to the last bit the losses would all be alike.
        labels: class numbers (n,).
    """
    wrong = np.flatnonzero(decisions(probabilities(logits), threshold) != labels)
    losses = cross_entropies(logits, labels)[wrong]
    return wrong[np.argsort(-losses, kind="stable")[:most]]
