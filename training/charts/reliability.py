"""Observed against predicted, before and after prior correction."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from training.calibration import claims, reliability
from training.charts.drawing import BETTER, QUIET, WORSE, figure, style

_SERIES = (("before", "before prior correction", "D", WORSE), ("after", "after, as served", "o", BETTER))


def reliability_chart(labels: np.ndarray, scores: Mapping[str, np.ndarray]) -> Figure:
    """Bins of equal count, with 95 % intervals of the observed shares.

    Args:
        labels: class numbers (n,).
        scores: probabilities (n, outputs) of the same images, as "before" and "after". Of more than two classes the
            largest is held against whether it was right.
    """
    several = scores["after"].shape[1] > 1
    with style():
        drawn = figure(470, 400)
        axes = drawn.subplots()
        axes.plot([0, 1], [0, 1], color=QUIET, linestyle=":", linewidth=1)
        for name, label, marker, colour in _SERIES:
            found = reliability(*claims(scores[name], labels))
            axes.vlines(found.predicted, *found.intervals, color=colour, alpha=0.45, linewidth=2.5)
            axes.plot(found.predicted, found.observed, marker=marker, markersize=5, color=colour, label=label)
        predicted = "largest probability (confidence)" if several else "predicted probability"
        observed = "share that was right" if several else "observed share"
        axes.set(xlabel=predicted, ylabel=observed, xlim=(0, 1.02), ylim=(0, 1.02))
        axes.grid(linewidth=0.6)
        drawn.legend(loc="outside upper left", ncols=2)
    return drawn
