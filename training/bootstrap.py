"""Bootstrap intervals that resample what is independent: unique images, and blocks of steps."""

from collections.abc import Callable, Iterator

import numpy as np

# Two-sided; each end is a one-sided 99 % bound.
LEVEL = 0.98
BLOCK_STEPS = 8
# Resamples at a time: all at once, the weights of many images would fill the memory.
_AT_ONCE = 100


def interval(draws: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """The percentile interval of bootstrap draws, shape (resamples,)."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def image_weights(images: int, resamples: int, random: np.random.Generator) -> np.ndarray:
    """How often each unique image is drawn in each resample; shape (resamples, images)."""
    return random.multinomial(images, np.full(images, 1 / images), size=resamples).astype(np.float64)


def image_weight_blocks(images: int, resamples: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """The rows of `image_weights`, a hundred at a time."""
    for first in range(0, resamples, _AT_ONCE):
        yield image_weights(images, min(_AT_ONCE, resamples - first), random)


def weights_within_classes(labels: np.ndarray, resamples: int, random: np.random.Generator) -> np.ndarray:
    """How often each image is drawn when each class keeps its number of images; shape (resamples, len(labels))."""
    weights = np.empty((resamples, len(labels)))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        weights[:, rows] = image_weights(len(rows), resamples, random)
    return weights


def mean_draws(values: np.ndarray, ids: np.ndarray, classes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The resampled means of row `values` at the rows' own class shares; shape (resamples,).

    Rows with the same id are one image and are drawn together. How many rows there are of each class was planned,
    not drawn, so each class is resampled for itself: otherwise a statistic that raises one class's loss and lowers the
    other's would look far less certain than it is.
    """
    shares = [_share_of_mean(values, ids, classes == label, weights) for label in np.unique(classes)]
    return np.sum(shares, axis=0)


def _share_of_mean(values: np.ndarray, ids: np.ndarray, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """What the chosen rows (a mask) contribute to the mean of all."""
    images = weights.shape[1]
    totals = weights @ np.bincount(ids[rows], weights=values[rows], minlength=images)
    drawn = weights @ np.bincount(ids[rows], minlength=images)
    # A class of a few images may not be drawn at all.
    means = np.divide(totals, drawn, out=np.full(len(drawn), values[rows].mean()), where=drawn > 0)
    return means * rows.mean()


def block_mean_draws(steps: np.ndarray, resamples: int, random: np.random.Generator) -> np.ndarray:
    """Resampled means of per-step values, shape (steps,): neighbours depend, so circular blocks are drawn.

    Politis & Romano 1992, "A circular block-resampling procedure for stationary data".
    """
    length = min(BLOCK_STEPS, len(steps))
    blocks = int(np.ceil(len(steps) / length))
    starts = random.integers(len(steps), size=(resamples, blocks, 1))
    places = ((starts + np.arange(length)) % len(steps)).reshape(resamples, -1)[:, : len(steps)]
    return np.asarray(steps)[places].mean(axis=1)


def statistic_draws(
    statistic: Callable[[np.ndarray], float], rows: int, resamples: int, random: np.random.Generator
) -> np.ndarray:
    """`statistic` of `resamples` resampled index arrays, each of length `rows`."""
    return np.array([statistic(random.integers(rows, size=rows)) for _ in range(resamples)])
