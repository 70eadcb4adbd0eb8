"""Whether the probabilities mean what they say, and the prior correction that makes them; binary classifiers."""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from scipy.optimize import brentq

from training.errors import DataRejected, received
from training.logits import cross_entropies, probabilities
from training.sampling import Prior, SamplingPlan, prior_shift

BINS = 10
LEVEL = 0.95


@dataclass(frozen=True)
class Reliability:
    """Images in bins of equal count, from the lowest probability to the highest; each array has shape (bins,).

    Attributes:
        predicted: mean predicted probability of each bin.
        observed: share of positive images.
        images: how many there are.
    """

    predicted: np.ndarray
    observed: np.ndarray
    images: np.ndarray

    @property
    def intervals(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper 95 % bounds of the observed shares (Wilson 1927, the score interval)."""
        z = NormalDist().inv_cdf((1 + LEVEL) / 2)
        spread = z**2 / self.images
        centre = (self.observed + spread / 2) / (1 + spread)
        half = np.sqrt(spread * self.observed * (1 - self.observed) + spread**2 / 4) / (1 + spread)
        return centre - half, centre + half


def reliability(scores: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Reliability:
    """Predicted against observed for probabilities (n,) and labels (n,) of 0 and 1; at most one bin an image."""
    parts = np.array_split(np.argsort(scores, kind="stable"), min(bins, len(scores)))
    return Reliability(
        predicted=np.array([scores[part].mean() for part in parts]),
        observed=np.array([labels[part].mean() for part in parts]),
        images=np.array([len(part) for part in parts]),
    )


def calibration(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """How well calibrated logits (n, 1) are against labels (n,) of 0 and 1.

    The log loss is in nats. The expected calibration error is the mean over images of |predicted − observed| of
    their bin, in bins of equal count (Nguyen & O'Connor 2015), so that no bin is empty.
    """
    scores = probabilities(logits)[:, 0]
    found = reliability(scores, labels)
    return {
        "images": len(labels),
        "log_loss": float(cross_entropies(logits, labels).mean()),
        "brier": float(np.mean((scores - labels) ** 2)),
        "expected_calibration_error": float(np.average(np.abs(found.predicted - found.observed), weights=found.images)),
        "binning": "equal_count",
        "bins": len(found.images),
        "mean_predicted": float(scores.mean()),
        "observed_share": float(labels.mean()),
    }


def fitted_intercept(logits: np.ndarray, labels: np.ndarray) -> float:
    """The constant to add to logits (n, 1) that makes labels (n,) of 0 and 1 most likely.

    Where the derivative of the likelihood is zero, the mean probability is the observed share.

    Raises:
        DataRejected: the labels are all of one class, for which the constant is infinite.
    """
    share = float(labels.mean())
    if not 0 < share < 1:
        raise DataRejected(
            received("validation", f"images of class {labels[0]} only", "both classes, to fit the prior's correction"),
            remedy="Put images of both classes into validation, or set recalibrate.distribution=oversampled.",
        )
    # With the root's own log odds at the lowest or at the highest logit, every probability is on one side of it.
    log_odds = np.log(share) - np.log1p(-share)
    low, high = log_odds - logits.max() - 1, log_odds - logits.min() + 1
    return float(brentq(lambda constant: probabilities(logits + constant).mean() - share, low, high))


def serving_prior(plan: SamplingPlan, *, natural_statistics: bool, logits: np.ndarray, labels: np.ndarray) -> Prior:
    """The correction with which a model trained on the plan answers at the natural rate.

    Args:
        natural_statistics: whether BatchNorm's statistics were taken from natural images. A model trained on
            another mixture then no longer answers at that mixture's rate, and the analytic shift, which starts
            from it, is wrong; the constant is fitted instead.
        logits, labels: of validation, (n, 1) and (n,), without correction.
    """
    as_trained = plan.trained_share == plan.natural_share or not natural_statistics
    # Logits that are not finite can fit nothing; the gate refuses the model that gave them.
    if as_trained or not np.isfinite(logits).all():
        return Prior(shift=prior_shift(plan), method="analytic")
    return Prior(shift=(0.0, fitted_intercept(logits, labels)), method="fitted_on_validation")
