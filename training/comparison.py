"""Candidate against champion on the same test images."""

from collections.abc import Iterable

import keras
import numpy as np

from training import bootstrap
from training.logits import cross_entropies, in_batches, inference_logits
from training.metrics import roc_auc
from training.verdict import Comparison


def served_logits(model: keras.Model, images: Iterable[np.ndarray]) -> np.ndarray:
    """Logits (n, outputs) of a served model on uint8 images of any sizes, one at a time."""
    forward = inference_logits(model)
    return np.concatenate([in_batches(forward, image[None], 1) for image in images])


def compare(
    number: int, champion: np.ndarray, candidate: np.ndarray, labels: np.ndarray, *, resamples: int, seed: int
) -> Comparison:
    """Loss and ROC AUC of two models' logits (n, outputs) on the same images, with a paired-bootstrap interval."""
    losses = cross_entropies(candidate, labels), cross_entropies(champion, labels)
    difference = losses[0] - losses[1]
    random = np.random.default_rng(seed)
    draws = bootstrap.statistic_draws(lambda rows: difference[rows].mean(), len(labels), resamples, random)
    return Comparison(
        number=number,
        champion_loss=float(losses[1].mean()),
        candidate_loss=float(losses[0].mean()),
        difference=float(difference.mean()),
        interval=bootstrap.interval(draws),
        champion_roc_auc=roc_auc(champion, labels),
        candidate_roc_auc=roc_auc(candidate, labels),
    )
