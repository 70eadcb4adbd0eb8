"""Evaluation: the telescope of losses from `fit` to validation, what separates them, and how sure that is."""

from collections.abc import Mapping
from typing import Any

from training.documents import Document
from training.sampling import Prior

# The column of `history.csv` every other loss is compared with: never weighted, smoothed or penalised.
BARE_LOSS = "cross_entropy"
# The chain from the loss `fit` reported to the loss on validation; each link is one cause.
CHAIN = {
    "moving_weights": ("fit", "train_mode"),
    "stochastic_layers": ("train_mode", "batch_statistics"),
    "small_batches": ("batch_statistics", "inference"),
    "sampling": ("inference", "natural"),
    "generalization": ("natural", "validation"),
}
BATCH_NORM = ("inference", "inference_before")
# What the gate looks at: how far the served model's loss is from training's, on the same images.
GAPS = {
    "served_minus_fit": ("fit", "served"),
    "served_minus_batch_statistics": ("batch_statistics", "served"),
    # What the gate would see if the statistics were served as training left them.
    "inference_before_minus_fit": ("fit", "inference_before"),
    "inference_before_minus_batch_statistics": ("batch_statistics", "inference_before"),
}
DIFFERENCES = CHAIN | {"batch_norm": BATCH_NORM}

MEANINGS = {
    "moving_weights": "the weights went on changing while fit averaged its loss",
    "stochastic_layers": "dropout and augmentation act in training and not in evaluation",
    "small_batches": "a batch's own statistics differ from those of the whole training set",
    "sampling": "oversampled training images are not distributed as natural ones",
    "generalization": "the network knows its training images better than new ones",
    "batch_norm": "BatchNorm's moving statistics lag behind the weights they are used with",
    "non_finite": "a loss is NaN or infinite",
}
REMEDIES = {
    "moving_weights": "Lower the learning rate or train longer; the last steps still move the weights a lot.",
    "stochastic_layers": "Check dropout and augmentation; they should make the loss in training higher, not lower.",
    "small_batches": "Use larger batches, or freeze BatchNorm (model.policy=frozen_batch_norm).",
    "sampling": "Check how the training images are sampled; the gap comes from the class shares, not from the network.",
    "generalization": "Collect more images, train fewer epochs, or raise dropout.",
    "batch_norm": "Turn on recalibrate.enabled, or lower model.batch_norm_momentum, "
    "or freeze BatchNorm (model.policy=frozen_batch_norm).",
    "non_finite": "Lower train.learning_rate and look for damaged images; the last champion stays in service.",
}


class Evaluation(Document):
    """Losses in nats (bare cross-entropy), their differences, and two-sided 98 % bootstrap intervals.

    Each end of an interval is a one-sided 99 % bound. Absent inputs give null. `dominant` names the cause that explains
    most of the whole difference; `absent` the losses that were not asked for, so that their null is no alarm.
    """

    losses: dict[str, float | None]
    causes: dict[str, float | None]
    gaps: dict[str, float | None]
    intervals: dict[str, tuple[float, float] | None]
    samples: int
    dominant: str | None = None
    absent: tuple[str, ...] = ()
    metrics: dict[str, dict[str, Any]] = {}
    penalties: float = 0.0
    kept_epoch: int | None = None
    threshold: float | None = None
    prior: Prior | None = None
    calibration: dict[str, dict[str, Any]] = {}
    mini_batch_statistics: dict[str, Any] | None = None


def differences(losses: Mapping[str, float | None], pairs: Mapping[str, tuple[str, str]]) -> dict[str, float | None]:
    """``{name: losses[end] − losses[start]}``, null where either end is."""
    return {name: _minus(losses[end], losses[start]) for name, (start, end) in pairs.items()}


def _minus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def dominant(
    causes: Mapping[str, float | None], intervals: Mapping[str, tuple[float, float] | None], *, lagging: bool
) -> str | None:
    """The cause that adds most in the direction of the whole difference; None when none is beyond noise.

    `lagging`: whether the statistics that training left are the ones served; if not, their lag separates nothing.
    """
    found = {name: value for name, value in causes.items() if value is not None and _beyond_noise(intervals.get(name))}
    if not lagging:
        found.pop("batch_norm", None)
    worse = sum(found.values()) >= 0
    return max(found, key=lambda name: found[name] if worse else -found[name], default=None)


def _beyond_noise(interval: tuple[float, float] | None) -> bool:
    return interval is not None and (interval[0] > 0 or interval[1] < 0)
