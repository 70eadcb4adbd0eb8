"""The telescope of losses as a waterfall: from fit, by what separates them, to validation; BatchNorm's lag apart."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from matplotlib.figure import Figure

from training.charts.drawing import BETTER, INK, LEVEL, LIMIT, QUIET, WORSE, figure, style
from training.evaluation import BATCH_NORM, CHAIN, Evaluation

LOSS_NAMES = {
    "fit": "A  fit, as training reported it",
    "train_mode": "B  training mode, weights held",
    "batch_statistics": "C  batch statistics, no dropout",
    "inference_before": "D  evaluate, before recalibration",
    "inference": "E  evaluate, recalibrated",
    "natural": "F  natural training images",
    "validation": "G  validation",
}
# Above this the side branch has an axis of its own, or it would press the waterfall flat.
_APART = 3.0
_LINE = 100


@dataclass(frozen=True)
class Row:
    """A bar from `start` to `end` (nats; null: there is none) and the ends of its whisker.

    Attributes:
        step: whether it is a difference; else a loss, from zero.
        note: what stands in the place of a bar that is not there.
    """

    name: str
    start: float | None
    end: float | None
    whisker: tuple[float, float] | None
    step: bool = False
    note: str = ""

    @property
    def there(self) -> bool:
        return self.start is not None and self.end is not None

    @property
    def reach(self) -> float:
        return max((value for value in (self.start, self.end, *(self.whisker or ())) if value is not None), default=0.0)

    @property
    def words(self) -> str:
        if self.start is None or self.end is None:
            return self.note
        return f"{self.end - self.start:+.3f}" if self.step else f"{self.end:.3f}"


def chain_rows(evaluation: Evaluation) -> list[Row]:
    """A, the five steps, G."""
    steps = [step_row(evaluation, name, *ends) for name, ends in CHAIN.items()]
    return [loss_row(evaluation, "fit"), *steps, loss_row(evaluation, "validation")]


def branch_rows(evaluation: Evaluation) -> list[Row]:
    """A again, then E, BatchNorm's lag, D: fit against `evaluate`, recalibrated and not."""
    lag = step_row(evaluation, "batch_norm", *BATCH_NORM)
    fit, after, before = (loss_row(evaluation, name) for name in ("fit", "inference", "inference_before"))
    return [fit, after, lag, before]


def loss_row(evaluation: Evaluation, name: str) -> Row:
    value = _finite(evaluation.losses.get(name))
    whisker = None if value is None else _whisker(evaluation, name, 0.0)
    served = name in BATCH_NORM and value is not None and value == evaluation.losses.get("served")
    words = LOSS_NAMES[name] + (" (served)" if served else "")
    return Row(words, None if value is None else 0.0, value, whisker, note=_missing(evaluation, name))


def step_row(evaluation: Evaluation, name: str, begin: str, finish: str) -> Row:
    start, end = (_finite(evaluation.losses.get(loss)) for loss in (begin, finish))
    letters = f"{LOSS_NAMES[begin][0]} → {LOSS_NAMES[finish][0]}"
    whisker = None if start is None or end is None else _whisker(evaluation, name, start)
    note = _missing(evaluation, begin if start is None else finish)
    return Row(f"{letters}  {name.replace('_', ' ')}", start, end, whisker, step=True, note=note)


def waterfall(evaluation: Evaluation, limit: float | None, title: str = "") -> Figure:
    """The picture.

    Args:
        limit: the largest accepted loss of the served model (fit plus the accepted gap), in nats; null: none is known.
        title: what the picture should say where no page says it.
    """
    chain, branch = chain_rows(evaluation), branch_rows(evaluation)
    with style():
        drawn = figure(960, 580 if title else 520)
        above, below = drawn.subplots(2, 1, height_ratios=(len(chain), len(branch)))
        _bars(above, chain, limit)
        _bars(below, branch, limit)
        _scales(above, below, chain, branch, limit)
        above.set_title("From fit to validation")
        below.set_title("Side branch, the same training images: fit against evaluate, recalibrated and not")
        below.set_xlabel("cross-entropy (nats); thin lines: 98 % intervals")
        _name_limit(above, limit)
        drawn.suptitle(textwrap.fill(title, _LINE), x=0.01, ha="left", fontsize=14, fontweight="bold")
    return drawn


def told(evaluation: Evaluation, limit: float | None) -> str:
    """The picture in words, for those who cannot see it."""
    parts = [f"{row.name} {row.words}" for row in (*chain_rows(evaluation), *branch_rows(evaluation))]
    words = "Waterfall of losses in nats: " + "; ".join(" ".join(part.split()) for part in parts)
    return words + ("." if limit is None else f"; accepted up to {limit:.3f}.")


def _bars(axes: Any, rows: Sequence[Row], limit: float | None) -> None:
    for place, row in enumerate(rows):
        if row.there:
            _bar(axes, place, row)
        axes.annotate(
            row.words,
            (row.reach, place),
            (7, 0),
            textcoords="offset points",
            va="center",
            color=INK,
            annotation_clip=False,
        )
    _connect(axes, rows)
    if limit is not None:
        axes.axvline(limit, color=LIMIT, linestyle=(0, (5, 3)), linewidth=1.4)
    axes.set_yticks(range(len(rows)), [row.name for row in rows], color=INK)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", linewidth=0.6)


def _bar(axes: Any, place: int, row: Row) -> None:
    assert row.start is not None and row.end is not None
    change = row.end - row.start
    colour = LEVEL if not row.step else WORSE if change > 0 else BETTER
    # A step of nothing is still a step: a line as wide as can be seen.
    axes.barh(place, change, left=row.start, height=0.62, color=colour, edgecolor=colour, linewidth=1)
    if row.whisker is not None:
        axes.plot(row.whisker, [place] * 2, color=INK, linewidth=1.3)
        for end in row.whisker:
            axes.plot([end] * 2, [place - 0.13, place + 0.13], color=INK, linewidth=1.3)


def _connect(axes: Any, rows: Sequence[Row]) -> None:
    """Thin lines from where one bar ends to where its next step begins, or where a step leads."""
    for place, (row, following) in enumerate(pairwise(rows)):
        if row.end is not None and (row.step or following.step):
            axes.plot([row.end] * 2, [place + 0.31, place + 0.69], color=QUIET, linewidth=0.8)


def _scales(above: Any, below: Any, chain: Sequence[Row], branch: Sequence[Row], limit: float | None) -> None:
    """One scale for both where that serves both."""
    first, second = (max([row.reach for row in rows] + [limit or 0.0, 1e-3]) for rows in (chain, branch))
    if second < _APART * first:
        first = second = max(first, second)
        above.tick_params(labelbottom=False)
    above.set_xlim(0, 1.12 * first)
    below.set_xlim(0, 1.12 * second)


def _name_limit(axes: Any, limit: float | None) -> None:
    if limit is not None:
        words = f"served: accepted up to {limit:.3f}"
        axes.annotate(
            words,
            (limit, 1),
            (0, 4),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            ha="right" if limit > axes.get_xlim()[1] / 2 else "left",
            color=LIMIT,
            fontsize=11,
        )


def _whisker(evaluation: Evaluation, name: str, start: float) -> tuple[float, float] | None:
    interval = evaluation.intervals.get(name)
    if interval is None or not all(math.isfinite(end) for end in interval):
        return None
    return start + interval[0], start + interval[1]


def _missing(evaluation: Evaluation, name: str) -> str:
    return "not measured" if name in evaluation.absent else "missing or not a finite number"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
