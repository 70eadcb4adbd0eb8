"""How far each BatchNorm layer's mean and variance were from the pooled ones and, where measured, are now."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from training.charts.drawing import BETTER, QUIET, WORSE, figure, plain_axis, style

# What float32 statistics can resolve; a logarithmic axis has no zero.
_LEAST = 1e-7
_PANELS = (("mean_drift", "drift of the mean (σ)"), ("variance_ratio", "variance ÷ pooled"))
_SERIES = (("", "as training left them", "D", WORSE), ("remaining_", "as served", "o", BETTER))


def drift_chart(layers: Sequence[Mapping[str, Any]]) -> Figure:
    """Two panels over depth, from the layers of `batch_norm.json`."""
    with style():
        drawn = figure(960, 380)
        panels = drawn.subplots(2, 1, sharex=True)
        for axes, (name, label) in zip(panels, _PANELS, strict=True):
            for prefix, series, marker, colour in _SERIES:
                places, values = _by_depth(layers, prefix + name)
                if places:
                    axes.plot(places, values, marker, markersize=5, color=colour, label=series)
            axes.set(ylabel=label, yscale="log")
            axes.grid(axis="y", linewidth=0.6)
            plain_axis(axes.yaxis)
        panels[1].axhline(1, color=QUIET, linewidth=0.8, zorder=0)
        panels[1].set_xlabel("BatchNorm layer, input to output")
        panels[1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return drawn


def _by_depth(layers: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """The layers' places and values of `key`, of those that have one."""
    found = [(place, layer[key]) for place, layer in enumerate(layers, 1) if layer[key] is not None]
    return [place for place, _ in found], [max(value, _LEAST) for _, value in found]
