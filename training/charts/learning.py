"""Training loss, and validation loss on lagging and on recalibrated statistics, by epoch."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from training.charts.drawing import BETTER, LEVEL, QUIET, WORSE, figure, plain_axis, style
from training.evaluation import BARE_LOSS

_LINES = (
    # Bare, as the others are; what fit minimises may be weighted by class.
    (BARE_LOSS, "fit", "o", LEVEL),
    ("val_loss", "validation, statistics as they lag", "D", WORSE),
    ("recalibrated_val_loss", "validation, recalibrated", "^", BETTER),
)


def learning_curves(history: Sequence[Mapping[str, float]], kept: int | None) -> Figure:
    """One mark an epoch; what is not finite is left out.

    Args:
        history: a row an epoch, losses in nats.
        kept: the epoch whose weights are kept.
    """
    epochs = [int(row["epoch"]) for row in history]
    with style():
        drawn = figure(960, 300)
        axes = drawn.subplots()
        for column, label, marker, colour in _LINES:
            axes.plot(epochs, _finite(history, column), marker=marker, color=colour, label=label)
        if kept is not None:
            axes.axvline(kept, color=QUIET, linestyle=":", label="kept epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set(xlabel="epoch", ylabel="loss (nats)", yscale=_scale(history))
        if axes.get_yscale() == "log":
            plain_axis(axes.yaxis)
        axes.grid(axis="y", linewidth=0.6)
        drawn.legend(loc="outside upper left", ncols=4)
    return drawn


def _finite(history: Sequence[Mapping[str, float]], column: str) -> np.ndarray:
    values = np.array([row[column] for row in history])
    return np.where(np.isfinite(values), values, np.nan)


def _scale(history: Sequence[Mapping[str, float]]) -> str:
    """Lagging statistics can put one curve two orders of magnitude above the other."""
    lagging, fit = (np.nan_to_num(_finite(history, column)).max() for column in ("val_loss", BARE_LOSS))
    return "log" if lagging > 5 * fit > 0 else "linear"
