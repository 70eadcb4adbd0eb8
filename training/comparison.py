"""Candidate against champion on the same test images."""

from collections.abc import Iterable

import keras
import numpy as np

from training import bootstrap
from training.logits import answered, cross_entropies, inference_logits, probabilities
from training.metrics import roc_auc
from training.verdict import Comparison

# Two-sided, so that each end is a one-sided 95 % bound.
LEVEL = 0.90
_BLOCK = 100


def served_logits(model: keras.Model, images: Iterable[np.ndarray]) -> np.ndarray:
    """Logits (n, outputs) of a served model on uint8 images of any sizes, one at a time."""
    forward = inference_logits(model)
    return answered(forward, (image[None] for image in images))


def compare(
    number: int, champion: np.ndarray, candidate: np.ndarray, labels: np.ndarray, *, resamples: int, seed: int
) -> Comparison:
    """Loss and ROC AUC of two models' finite logits (n, outputs) on the same images, and how far they differ.

    The intervals are paired percentile bootstraps (Efron & Tibshirani 1993, chapter 13): a draw resamples images within
    each class, as the metrics' own intervals do, and both models are measured on that draw.
    """
    losses = [cross_entropies(logits, labels) for logits in (champion, candidate)]
    areas = [roc_auc(logits, labels) for logits in (champion, candidate)]
    draws = _differences(losses[1] - losses[0], champion, candidate, labels, resamples, seed)
    return Comparison(
        number=number,
        images=len(labels),
        champion_loss=float(losses[0].mean()),
        candidate_loss=float(losses[1].mean()),
        difference=float((losses[1] - losses[0]).mean()),
        interval=bootstrap.interval(draws[:, 0], LEVEL),
        champion_roc_auc=areas[0],
        candidate_roc_auc=areas[1],
        roc_auc_difference=areas[1] - areas[0],
        roc_auc_interval=bootstrap.interval(draws[:, 1], LEVEL),
    )


def _differences(
    losses: np.ndarray, champion: np.ndarray, candidate: np.ndarray, labels: np.ndarray, resamples: int, seed: int
) -> np.ndarray:
    """Candidate minus champion in each draw: loss, ROC AUC; shape (resamples, 2)."""
    random = np.random.default_rng(seed)
    blocks = []
    for first in range(0, resamples, _BLOCK):  # all at once, the weights of many images would fill the memory
        weights = bootstrap.weights_within_classes(labels, min(_BLOCK, resamples - first), random)
        areas = area_draws(candidate, labels, weights) - area_draws(champion, labels, weights)
        blocks.append(np.column_stack([weights @ losses / len(labels), areas]))
    return np.concatenate(blocks)


def area_draws(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`roc_auc` of each draw, shape (draws,), where `weights` (draws, n) say how often it holds each image."""
    if logits.shape[1] == 1:
        return _areas(logits[:, 0], labels == 1, weights)
    scores = probabilities(logits)
    return np.mean([_areas(scores[:, label], labels == label, weights) for label in np.unique(labels)], axis=0)


def _areas(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The share of pairs in which the positive image scores higher, ties counting half (Mann & Whitney 1947)."""
    order = np.argsort(scores, kind="stable")
    steps = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))  # where the next higher score begins
    drawn, positive = weights[:, order], positive[order]
    hits, others = (np.add.reduceat(drawn * chosen, steps, axis=1) for chosen in (positive, ~positive))
    below = np.cumsum(others, axis=1) - others / 2
    return (hits * below).sum(axis=1) / (hits.sum(axis=1) * others.sum(axis=1))
