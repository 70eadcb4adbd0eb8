"""Whether the probabilities mean what they say, and the prior correction that makes them."""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from scipy.optimize import brentq, minimize
from scipy.special import log_softmax, logsumexp

from training.errors import DataRejected, received
from training.logits import cross_entropies, probabilities
from training.one_vs_rest import brier
from training.sampling import Prior, SamplingPlan, prior_shift

BINS = 10
LEVEL = 0.95


@dataclass(frozen=True)
class Reliability:
    """Images in bins of equal count, from the lowest probability to the highest; each array has shape (bins,).

    Attributes:
        predicted: mean predicted probability of each bin.
        observed: share of images for which it came true.
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


def claims(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What probabilities (n, outputs) say of each image, and whether class numbers (n,) bear it out; both (n,).

    Of two classes that it is the positive one; of more, the probability of the most probable one (the confidence) and
    whether it is that.
    """
    if scores.shape[1] == 1:
        return scores[:, 0], labels
    return scores.max(axis=1), (scores.argmax(axis=1) == labels).astype(np.int64)


def calibration(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """How well calibrated logits (n, outputs) are against class numbers (n,).

    The log loss is in nats. The expected calibration error is the mean over images of |predicted − observed| of
    their bin, in bins of equal count (Nguyen & O'Connor 2015), so that no bin is empty. Of more than two classes it is
    the top label's alone (Guo et al. 2017): `mean_confidence` against `accuracy`, binned by confidence, while log
    loss and Brier score (0 to 2) are of all classes.
    """
    scores = probabilities(logits)
    predicted, happened = claims(scores, labels)
    found = reliability(predicted, happened)
    binary = scores.shape[1] == 1
    means = ("mean_predicted", "observed_share") if binary else ("mean_confidence", "accuracy")
    return {
        "images": len(labels),
        "log_loss": float(cross_entropies(logits, labels).mean()),
        "brier": float(np.mean((predicted - labels) ** 2)) if binary else brier(scores, labels),
        "expected_calibration_error": float(np.average(np.abs(found.predicted - found.observed), weights=found.images)),
        "binning": "equal_count" if binary else "equal_count_of_top_label_confidence",
        "bins": len(found.images),
        means[0]: float(predicted.mean()),
        means[1]: float(happened.mean()),
    }


def fitted_shift(logits: np.ndarray, labels: np.ndarray) -> tuple[float, ...]:
    """What to add to each class's logit to make class numbers (n,) most likely; the first class is the reference.

    Args:
        logits: (n, 1) or (n, K), without correction.

    Raises:
        DataRejected: a class does not occur, for which the constant is infinite.
    """
    if logits.shape[1] == 1:
        return 0.0, fitted_intercept(logits, labels)
    return tuple(fitted_intercepts(logits, labels).tolist())


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


def fitted_intercepts(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The constants (K,), the first of them zero, that make class numbers (n,) most likely when added to logits (n, K).

    Where the gradient of the likelihood, which has one maximum, is zero, each class's mean probability is its observed
    share.

    Raises:
        DataRejected: a class does not occur, for which the constant is infinite.
    """
    shares = np.bincount(labels, minlength=logits.shape[1]) / len(labels)
    _require_every_class(shares)
    scores = log_softmax(np.asarray(logits, np.float64), axis=1)

    def loss(constants: np.ndarray) -> tuple[float, np.ndarray]:
        shifted = scores + np.append(0, constants)
        gradient = probabilities(shifted).mean(axis=0) - shares
        return float(cross_entropies(shifted, labels).mean()), gradient[1:]

    # One step of proportional fitting, which no constant on a class, however large, leads astray.
    start = np.log(shares) - logsumexp(scores, axis=0)
    found = minimize(loss, start[1:] - start[0], jac=True, method="BFGS", options={"gtol": 1e-9})
    return np.append(0, found.x)


def _require_every_class(shares: np.ndarray) -> None:
    for number in np.flatnonzero(shares == 0):
        raise DataRejected(
            received("validation", f"no image of class {number}", "every class, to fit the prior's correction"),
            remedy="Put images of every class into validation, or set recalibrate.distribution=oversampled.",
        )


def serving_prior(plan: SamplingPlan, *, natural_statistics: bool, logits: np.ndarray, labels: np.ndarray) -> Prior:
    """The correction with which a model trained on the plan answers at the natural rate.

    Args:
        natural_statistics: whether BatchNorm's statistics were taken from natural images. A model trained on
            other images then no longer answers at the rate it was trained for, and the analytic shift, which starts
            from it, is wrong; the constant is fitted instead.
        logits, labels: of validation, (n, outputs) and (n,), without correction.
    """
    as_trained = plan.shown_share == plan.natural_share or not natural_statistics
    # Logits that are not finite can fit nothing; the gate refuses the model that gave them.
    if as_trained or not np.isfinite(logits).all():
        return Prior(shift=prior_shift(plan), method="analytic")
    return Prior(shift=fitted_shift(logits, labels), method="fitted_on_validation")
