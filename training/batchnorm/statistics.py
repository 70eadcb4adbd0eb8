"""Pooled statistics and how far a layer's own are from them; NumPy alone."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from training.documents import Document


class Pair(NamedTuple):
    """Mean and variance of each channel, shapes (channels,)."""

    mean: np.ndarray
    variance: np.ndarray


class Statistics:
    """Population mean and variance of each channel, pooled in float64 over batches of any size."""

    def __init__(self, channels: int) -> None:
        self.count, self.mean, self.squares = np.zeros(channels), np.zeros(channels), np.zeros(channels)

    def add(self, count: float | np.ndarray, mean: np.ndarray, variance: np.ndarray) -> None:
        """Pool in a batch: the mean of variances plus the variance of means (Chan, Golub & LeVeque 1979).

        `count` is how many values there were, of all channels or of each; 0 where everything was masked.
        """
        total = self.count + count
        share = np.divide(count, total, out=np.zeros_like(total), where=total > 0)
        delta = mean - self.mean
        self.squares += variance * count + delta**2 * self.count * share
        self.mean += delta * share
        self.count = total

    def split(self, sizes: Sequence[int]) -> list["Statistics"]:
        """The same, in groups of so many channels."""
        parts = [Statistics(size) for size in sizes]
        ends = np.cumsum(sizes)[:-1]
        values = zip(*(np.split(array, ends) for array in (self.count, self.mean, self.squares)), strict=True)
        for part, (count, mean, squares) in zip(parts, values, strict=True):
            part.count, part.mean, part.squares = count, mean, squares
        return parts

    @property
    def variance(self) -> np.ndarray:
        """The population (biased) variance, which is what Keras keeps."""
        return np.maximum(self.squares / self.count, 0)  # rounding can leave a constant channel below zero

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.mean).all() and np.isfinite(self.squares).all())


class Distance(Document):
    """How far a layer's statistics are from pooled ones.

    Attributes:
        mean_drift: root mean square over channels of (own mean − pooled mean) / pooled sigma.
        worst_mean_drift: the largest of these, absolute.
        variance_ratio: geometric mean over channels of own variance / pooled variance.
        worst_variance_drift: the largest |own variance / pooled variance − 1| of a channel.
    """

    mean_drift: float
    worst_mean_drift: float
    variance_ratio: float
    worst_variance_drift: float

    @property
    def worst(self) -> float:
        """The larger of the two worst drifts: in sigmas, or as a fraction of the variance."""
        return max(self.worst_mean_drift, self.worst_variance_drift)


def distance(mean: np.ndarray, variance: np.ndarray, pooled: Statistics, epsilon: float) -> Distance:
    """Compare a layer's own statistics, each of shape (channels,), with pooled ones.

    `epsilon` is the layer's: a channel that never varies has no sigma of its own.
    """
    sigmas = (mean - pooled.mean) / np.sqrt(pooled.variance + epsilon)
    ratio = (variance + epsilon) / (pooled.variance + epsilon)
    return Distance(
        mean_drift=float(np.sqrt(np.mean(sigmas**2))),
        worst_mean_drift=float(np.abs(sigmas).max()),
        variance_ratio=float(np.exp(np.mean(np.log(ratio)))),
        worst_variance_drift=float(np.abs(ratio - 1).max()),
    )
