"""The served model's worst mistakes on the test images, with a look at each."""

import hashlib

import numpy as np

from training.errors import StoreError
from training.images import thumbnail
from training.logits import cross_entropies, probabilities
from training.mistakes import Mistake, decisions, worst
from training.run_folder import Run
from training.steps.inputs import split_files
from training.store import Store, open_store

_SIDE = 128


def worst_images(run: Run, logits: np.ndarray, labels: np.ndarray, threshold: float | None) -> tuple[Mistake, ...]:
    """The worst first, of the test images' logits (n, outputs) as served; none where a logit is not finite."""
    if not np.isfinite(logits).all():
        return ()
    data, files, classes = open_store(run.config.data.location), split_files(run, "test"), run.config.data.classes
    rows, scores = worst(logits, labels, threshold), probabilities(logits)
    decided, losses = decisions(scores, threshold), cross_entropies(logits, labels)
    sure = np.column_stack([1 - scores, scores]) if scores.shape[1] == 1 else scores
    return tuple(
        Mistake(
            path=files[row][0],
            label=classes[labels[row]],
            decided=classes[decided[row]],
            probability=float(sure[row, decided[row]]),
            loss=float(losses[row]),
            thumbnail=_look(data, *files[row]),
        )
        for row in rows
    )


def _look(data: Store, path: str, sha256: str) -> bytes | None:
    """A report must not fail over an image that is gone, nor show another one in its place."""
    try:
        content = data.read(path)
    except StoreError:
        return None
    return thumbnail(content, _SIDE, "JPEG") if hashlib.sha256(content).hexdigest() == sha256 else None
