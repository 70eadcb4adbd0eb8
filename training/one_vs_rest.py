"""How well several classes are told apart: each against all others, and their mean."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    precision_recall_fscore_support,
    recall_score,
)

from training.logits import cross_entropies, probabilities

Interval = Callable[[Callable[[np.ndarray], float], np.ndarray], list[float]]


def areas(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """ROC AUC of each class against the rest, shape (K,), of probabilities (n, K) and class numbers (n,)."""
    return ranked_areas(scores, labels[:, None] == np.arange(scores.shape[1]))


def ranked_areas(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """ROC AUC of each column of scores (n, K), shape (K,), where `positive` (n, K) says which images are to be above.

    By ranks (Mann & Whitney 1947), which thousands of bootstrap draws have time for, as they have not for curves; NaN
    for a column where none is positive or every one.
    """
    images = positive.sum(axis=0)
    beaten = (rankdata(scores, axis=0) * positive).sum(axis=0) - images * (images + 1) / 2
    pairs = images * (len(scores) - images)
    return np.divide(beaten, pairs, out=np.full(len(images), np.nan), where=pairs > 0)


def macro_area(scores: np.ndarray, labels: np.ndarray) -> float:
    """The mean of `areas` over the classes that occur; NaN where only one does."""
    found = areas(scores, labels)
    return float(found[np.isfinite(found)].mean()) if np.isfinite(found).any() else float("nan")


def brier(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean squared distance of probabilities (n, K) from the truth, 0 to 2 (Brier 1950)."""
    truth = labels[:, None] == np.arange(scores.shape[1])
    return float(((scores - truth) ** 2).sum(axis=1).mean())


def several_class_metrics(
    logits: np.ndarray, labels: np.ndarray, classes: Sequence[str], interval: Interval
) -> dict[str, Any]:
    """Metrics of logits (n, K) against class numbers (n,); the largest probability decides.

    ROC AUC, average precision, precision and recall are means over the classes that occur. `confusion` has a row for
    each true and a column for each decided class.

    Args:
        interval: of a statistic of values (n, …), over draws within each class, classes in order.
    """
    scores, losses = probabilities(logits), cross_entropies(logits, labels)
    decided, numbers = scores.argmax(axis=1), np.arange(len(classes))
    in_order = np.sort(labels)
    each = _each_class(scores, decided, labels, classes)
    present = [found for found in each.values() if found["images"]]
    truth, occurring = labels[:, None] == numbers, np.isin(numbers, labels)
    return {
        "images": len(labels),
        "loss": float(losses.mean()),
        "loss_interval": interval(np.mean, losses),
        "roc_auc": _number(macro_area(scores, labels)),
        "roc_auc_interval": interval(lambda drawn: macro_area(drawn, in_order), scores) if len(present) > 1 else None,
        "average_precision": float(average_precision_score(truth[:, occurring], scores[:, occurring])),
        "brier": brier(scores, labels),
        "accuracy": float(accuracy_score(labels, decided)),
        "balanced_accuracy": float(recall_score(labels, decided, labels=np.unique(labels), average="macro")),
        "precision": float(np.mean([found["precision"] for found in present])),
        "recall": float(np.mean([found["recall"] for found in present])),
        "per_class": each,
        "confusion": confusion_matrix(labels, decided, labels=numbers).tolist(),
    }


def _each_class(
    scores: np.ndarray, decided: np.ndarray, labels: np.ndarray, classes: Sequence[str]
) -> dict[str, dict[str, Any]]:
    numbers = np.arange(len(classes))
    counted = precision_recall_fscore_support(labels, decided, labels=numbers, zero_division=0)
    precision, recall, _, images = (column.tolist() for column in counted)
    found = zip(classes, precision, recall, areas(scores, labels).tolist(), images, strict=True)
    return {
        label: {"precision": p, "recall": r, "roc_auc": _number(area), "images": int(count)}
        for label, p, r, area, count in found
    }


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
