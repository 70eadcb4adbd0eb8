"""ROC and precision-recall curves with their bootstrap bands."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from training.charts.drawing import QUIET, SERIES, figure, style
from training.ranking_curves import Curve

# More would be a tangle; the table has all of them.
MOST_CURVES = 8
_LONGEST = 32
# Colour alone tells nothing to some.
_DASHES = ("-", (0, (6, 2)), (0, (2, 1)), (0, (6, 2, 2, 2))) * 2


def roc_chart(curves: Sequence[Curve]) -> Figure:
    """Recall over the false-positive rate, at most eight curves: those with the least area."""
    return _chart(curves, "false-positive rate", "recall", stepped=False)


def precision_recall_chart(curves: Sequence[Curve]) -> Figure:
    """Precision over recall; a dotted line is what chance would give."""
    return _chart(curves, "recall", "precision", stepped=True)


def _chart(curves: Sequence[Curve], x: str, y: str, *, stepped: bool) -> Figure:
    # Several bands lie over each other.
    faint = 0.18 if len(curves) == 1 else 0.08
    shown = [curves[place] for place in sorted(np.argsort([curve.area for curve in curves])[:MOST_CURVES])]
    with style():
        drawn = figure(470, 400 + 18 * max(0, len(shown) - 1))
        axes = drawn.subplots()
        for curve, colour, dashes in zip(shown, SERIES, _DASHES, strict=False):
            axes.fill_between(curve.grid, curve.low, curve.high, color=colour, alpha=faint, linewidth=0)
            drawstyle = "steps-pre" if stepped else "default"
            axes.plot(
                curve.x,
                curve.y,
                color=colour,
                linestyle=dashes,
                linewidth=1.8,
                drawstyle=drawstyle,
                label=_label(curve),
            )
            axes.plot([0, 1], curve.chance, color=QUIET, linestyle=":", linewidth=1)
        axes.set(xlabel=x, ylabel=y, xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(linewidth=0.6)
        drawn.legend(loc="outside upper left")
    return drawn


def _label(curve: Curve) -> str:
    """A long name would push the curve off its own chart."""
    name = curve.name if len(curve.name) <= _LONGEST else curve.name[: _LONGEST - 1] + "…"
    return replace(curve, name=name).told
