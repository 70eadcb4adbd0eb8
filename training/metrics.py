"""How good the served model is: ranking, calibration and decisions, with 95 % bootstrap intervals."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, brier_score_loss, confusion_matrix, roc_auc_score, roc_curve

from training import bootstrap
from training.calibration import calibration
from training.logits import cross_entropies, probabilities
from training.one_vs_rest import macro_area, ranked_areas, several_class_metrics
from training.sampling import Prior

LEVEL = 0.95
_RESAMPLES = 1000


def served_metrics(
    raw: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    prior: Prior,
    seed: int,
    classes: Sequence[str],
) -> dict[str, Any]:
    """What `Evaluation` holds of the served model: `metrics`, `threshold`, and `calibration` on the test images.

    The threshold is chosen on validation, of the corrected probabilities that are served; of more than two classes
    the largest of these decides, and there is none.

    Args:
        raw: logits (n, outputs) of "train", "validation" and "test" images, without prior correction.
        labels: class numbers (n,).
        classes: their labels.

    Returns:
        Nothing when a logit is not finite.
    """
    logits = {name: prior.corrected(values) for name, values in raw.items()}
    if not all(np.isfinite(values).all() for values in logits.values()):
        return {}
    threshold = None
    if len(classes) == 2:
        threshold = best_threshold(probabilities(logits["validation"])[:, 0], labels["validation"])
    return {
        "metrics": {name: _metrics(logits[name], labels[name], classes, threshold, seed) for name in logits},
        "threshold": threshold,
        "calibration": {
            "before": calibration(raw["test"], labels["test"]),
            "after": calibration(logits["test"], labels["test"]),
        },
    }


def best_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    """The probability that best separates the classes: Youden's J, the largest recall minus false-positive rate."""
    false_positive, recall, thresholds = roc_curve(labels, scores)
    finite = np.isfinite(thresholds)
    return float(thresholds[finite][np.argmax((recall - false_positive)[finite])])


def ranking(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Loss in nats and ROC AUC of logits (n, outputs) against class numbers (n,)."""
    return {"loss": float(cross_entropies(logits, labels).mean()), "roc_auc": roc_auc(logits, labels)}


def roc_auc(logits: np.ndarray, labels: np.ndarray) -> float:
    """Of logits (n, 1) against labels of 0 and 1; of (n, K), the mean over classes of each against the rest."""
    if logits.shape[1] == 1:
        return float(roc_auc_score(labels, logits[:, 0]))
    return macro_area(probabilities(logits), labels)


def binary_metrics(logits: np.ndarray, labels: np.ndarray, threshold: float, seed: int) -> dict[str, Any]:
    """Metrics of a binary classifier's logits (n, 1) against labels (n,) of 0 and 1.

    `threshold` is a probability; images at or above it count as positive.
    """
    scores, positive = probabilities(logits)[:, 0], np.sort(labels)[:, None] == 1
    (tn, fp), (fn, tp) = confusion_matrix(labels, scores >= threshold, labels=[0, 1])
    return {
        "images": len(labels),
        **ranking(logits, labels),
        "loss_interval": _interval(np.mean, cross_entropies(logits, labels), labels, seed),
        "roc_auc_interval": _interval(lambda drawn: ranked_areas(drawn[:, None], positive)[0], scores, labels, seed),
        "average_precision": float(average_precision_score(labels, scores)),
        "brier": float(brier_score_loss(labels, scores)),
        "accuracy": float((tp + tn) / len(labels)),
        "precision": float(tp / max(tp + fp, 1)),
        "recall": float(tp / max(tp + fn, 1)),
        "confusion": {"tp": int(tp), "fp": int(fp), "tn": int(tn), "fn": int(fn)},
    }


def _metrics(
    logits: np.ndarray, labels: np.ndarray, classes: Sequence[str], threshold: float | None, seed: int
) -> dict[str, Any]:
    if threshold is not None:
        return binary_metrics(logits, labels, threshold, seed)
    return several_class_metrics(logits, labels, classes, partial(_interval, labels=labels, seed=seed))


def _interval(
    statistic: Callable[[np.ndarray], float], values: np.ndarray, labels: np.ndarray, seed: int
) -> list[float]:
    """Percentile bootstrap of a statistic of values (n, …), which are resampled within each class, classes in order."""
    random = np.random.default_rng(seed)
    classes = [values[labels == label] for label in np.unique(labels)]
    draws = [
        statistic(np.concatenate([random.choice(group, len(group)) for group in classes])) for _ in range(_RESAMPLES)
    ]
    return list(bootstrap.interval(np.array(draws), LEVEL))
