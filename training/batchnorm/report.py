"""What recalibration found and did: each layer's drift before and after, and whether validation spoke against it."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from training import bootstrap
from training.batchnorm.statistics import Distance
from training.documents import Document

Mode = Literal["one_pass", "self_consistent"]
NOTHING_TO_WRITE = "no BatchNormalization layer trains on batch statistics, so none of the statistics lag"
WRITTEN = "pooled population statistics written"
_RESAMPLES = 2000


class LayerDrift(Document):
    """One layer's distance from the pooled statistics, before and, where it was measured, after.

    Attributes:
        written: whether the pooled statistics replaced the layer's own.
        mean_drift, worst_mean_drift, variance_ratio: of the statistics the layer came with; see `Distance`.
        remaining_mean_drift, …: of those it has now, from what it sees in the served model.
    """

    name: str
    channels: int
    written: bool
    mean_drift: float
    worst_mean_drift: float
    variance_ratio: float
    remaining_mean_drift: float | None = None
    remaining_worst_mean_drift: float | None = None
    remaining_variance_ratio: float | None = None


class ValidationCheck(Document):
    """Mean validation loss in nats with the statistics before and after, and the 98 % interval of the difference."""

    before: float | None
    after: float | None
    interval: tuple[float, float] | None

    @property
    def worse(self) -> bool:
        """Whether the new statistics are worse beyond noise."""
        if self.after is None:
            return True
        return self.interval is not None and self.interval[0] > 0


class BatchNormReport(Document):
    """What `recalibrate` found and did.

    Attributes:
        passes: how often the images were run through the model.
        residual: in the self-consistent mode, the largest change of any channel's statistics in the last pass,
            in sigmas or as a fraction of the variance.
        kept_original: whether validation spoke against the new statistics, so that nothing was written.
    """

    applied: bool
    reason: str
    samples: int
    layers: tuple[LayerDrift, ...]
    mode: Mode = "one_pass"
    passes: int = 1
    residual: float | None = None
    kept_original: bool = False
    validation: ValidationCheck | None = None


def with_remaining(report: BatchNormReport, distances: Sequence[Distance]) -> BatchNormReport:
    """The report with each layer's distance from pooled statistics as it is now."""
    layers = tuple(
        drift.model_copy(update=_remaining(found)) for drift, found in zip(report.layers, distances, strict=True)
    )
    return report.model_copy(update={"layers": layers})


def checked(report: BatchNormReport, before: np.ndarray, after: np.ndarray, classes: np.ndarray) -> BatchNormReport:
    """Hold the new statistics against validation: losses of the same rows, shape (n,), before and after.

    When they are worse beyond noise, the report says that the old ones were kept.
    """
    check = ValidationCheck(before=_mean(before), after=_mean(after), interval=_interval(after - before, classes))
    report = report.model_copy(update={"validation": check})
    return _kept(report, check) if check.worse else report


def _kept(report: BatchNormReport, check: ValidationCheck) -> BatchNormReport:
    # What was measured of statistics that are put back says nothing about the model.
    layers = tuple(layer.model_copy(update={"written": False, **_remaining(None)}) for layer in report.layers)
    update = {"applied": False, "kept_original": True, "reason": _why(check), "layers": layers}
    return report.model_copy(update=update)


def _why(check: ValidationCheck) -> str:
    kept = "statistics kept as training left them: with pooled ones the validation loss is"
    if check.after is None or check.interval is None:
        return f"{kept} not finite"
    return f"{kept} {check.after:.3f} instead of {check.before:.3f}, at least {check.interval[0]:.3f} nats worse"


def _remaining(found: Distance | None) -> dict[str, Any]:
    names = ("mean_drift", "worst_mean_drift", "variance_ratio")
    return {f"remaining_{name}": None if found is None else getattr(found, name) for name in names}


def _interval(difference: np.ndarray, classes: np.ndarray) -> tuple[float, float] | None:
    """The paired bootstrap's, from a fixed seed; null where a loss is not finite."""
    if not np.isfinite(difference).all():
        return None
    images = np.arange(len(difference))
    blocks = bootstrap.image_weight_blocks(len(images), _RESAMPLES, np.random.default_rng(0))
    draws = [bootstrap.mean_draws(difference, images, classes, weights) for weights in blocks]
    return bootstrap.interval(np.concatenate(draws))


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if np.isfinite(values).all() else None
