"""ROC and precision-recall curves with bootstrap bands: how sure the ranking of these test images is; pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from training.bootstrap import interval, weights_within_classes

LEVEL = 0.95
RESAMPLES = 500
_GRID = np.linspace(0, 1, 101)
# More points than a screen has pixels only make the page larger.
_MOST_POINTS = 400


@dataclass(frozen=True)
class Curve:
    """A curve from (x, y) with the band [low, high] over `grid`.

    Attributes:
        x, y: shape (points,); of a precision-recall curve recall and precision.
        grid, low, high: shape (101,); each x for itself, so the band is pointwise.
        area: ROC AUC, or average precision.
        interval: of the area, 95 %.
        chance: y at x = 0 and x = 1 of scores that know nothing.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    grid: np.ndarray
    low: np.ndarray
    high: np.ndarray
    area: float
    interval: tuple[float, float]
    chance: tuple[float, float]

    @property
    def told(self) -> str:
        low, high = self.interval
        return f"{self.name}: {self.area:.3f} ({low:.3f} to {high:.3f})"


@dataclass(frozen=True)
class _Line:
    x: np.ndarray
    y: np.ndarray
    area: float
    at_grid: np.ndarray


def roc(name: str, labels: np.ndarray, scores: np.ndarray, seed: int = 0) -> Curve | None:
    """Recall over the false-positive rate of scores (n,) against labels (n,) of 0 and 1; None where one is absent."""
    return _curve(name, labels, scores, seed, _roc_line, lambda share: (0.0, 1.0))


def precision_recall(name: str, labels: np.ndarray, scores: np.ndarray, seed: int = 0) -> Curve | None:
    """Precision over recall, stepped, with the average precision as its area; None where a label is absent."""
    return _curve(name, labels, scores, seed, _precision_recall_line, lambda share: (share, share))


def each_class(
    kind: Callable[..., Curve | None], classes: Sequence[str], scores: np.ndarray, labels: np.ndarray, seed: int
) -> list[Curve]:
    """Curves of a kind (`roc` or `precision_recall`) of probabilities (n, outputs) against class numbers (n,).

    Of two classes the positive one's, of more each one's against the rest; a class that does not occur has none.
    """
    if len(classes) == 2:
        found = [kind(classes[1], labels, scores[:, 0], seed)]
    else:
        names = [f"{label} or not" for label in classes]
        found = [kind(name, labels == place, scores[:, place], seed) for place, name in enumerate(names)]
    return [curve for curve in found if curve is not None]


def _curve(
    name: str,
    labels: np.ndarray,
    scores: np.ndarray,
    seed: int,
    line: Callable[[np.ndarray, np.ndarray], _Line],
    chance: Callable[[float], tuple[float, float]],
) -> Curve | None:
    if len(np.unique(labels)) < 2:
        return None
    counts = _Counts(labels, scores)
    found = line(*counts.above(np.ones(len(labels))))
    random = np.random.default_rng(seed)
    # One resample at a time: all at once would take resamples × images numbers of memory.
    draws = [line(*counts.above(weights_within_classes(labels, 1, random)[0])) for _ in range(RESAMPLES)]
    low, high = np.quantile([draw.at_grid for draw in draws], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    sure = interval(np.array([draw.area for draw in draws]), LEVEL)
    kept = np.unique(np.linspace(0, len(found.x) - 1, min(len(found.x), _MOST_POINTS)).round().astype(int))
    expected = chance(float(labels.mean()))
    return Curve(name, found.x[kept], found.y[kept], _GRID, low, high, found.area, sure, expected)


class _Counts:
    """Images at or above each distinct score, sorted once for all resamples."""

    def __init__(self, labels: np.ndarray, scores: np.ndarray) -> None:
        self._order = np.argsort(-scores, kind="stable")
        self._positive = labels[self._order].astype(np.float64)
        # Images with one score are decided together.
        self._ends = np.append(np.flatnonzero(np.diff(scores[self._order])), len(scores) - 1)

    def above(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """True and false positives at each threshold, highest first, of images drawn `weights` (n,) times."""
        drawn = weights[self._order]
        true = np.cumsum(drawn * self._positive)[self._ends]
        return true, np.cumsum(drawn)[self._ends] - true


def _roc_line(true: np.ndarray, false: np.ndarray) -> _Line:
    x, y = np.append(0, false / false[-1]), np.append(0, true / true[-1])
    return _Line(x, y, float(np.trapezoid(y, x)), np.interp(_GRID, x, y))


def _precision_recall_line(true: np.ndarray, false: np.ndarray) -> _Line:
    shown = true + false
    recall = true / true[-1]
    # Where a resample has drawn none of the highest, nothing is claimed and nothing is wrong.
    precision = np.divide(true, shown, out=np.ones(len(true)), where=shown > 0)
    area = float(np.sum(np.diff(recall, prepend=0) * precision))
    at_grid = precision[np.searchsorted(recall, _GRID * recall[-1])]
    return _Line(np.append(0, recall), np.append(precision[0], precision), area, at_grid)
