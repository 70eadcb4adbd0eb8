"""The report's pictures, as SVG that goes into one self-contained page."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from sklearn.metrics import roc_curve

from training.calibration import claims, reliability
from training.evaluation import BARE_LOSS

matplotlib.use("svg")
from matplotlib import pyplot as plt
from matplotlib import ticker

_INK, _GOOD, _BAD, _GRID = "#2b3a55", "#2e7d5b", "#c0392b", "#d9dee7"
# What float32 statistics can resolve; a logarithmic axis has no zero.
_LEAST_DRIFT = 1e-7
matplotlib.rcParams.update({"svg.hashsalt": "nightshift", "svg.fonttype": "none", "font.size": 10})


def losses_chart(
    losses: Mapping[str, float | None], intervals: Mapping[str, Any], names: Mapping[str, str], limit: float | None
) -> str:
    """Bars of the losses from fit to validation with their intervals; the line is what the gate accepts."""
    shown = [name for name in names if losses.get(name) is not None]
    values = [losses[name] for name in shown]
    figure, axes = _figure(7.6, 3.0)
    axes.barh(range(len(shown)), values, color=[_BAD if name == "inference_before" else _INK for name in shown])
    for place, name in enumerate(shown):
        interval = intervals.get(name) or [values[place]]
        axes.plot(interval, [place] * len(interval), color="#8899aa", linewidth=3, solid_capstyle="butt")
        axes.text(max(values[place], *interval), place, f"  {values[place]:.3f}", va="center")
    if limit is not None:
        axes.axvline(limit, color=_GOOD, linestyle="--", label="largest accepted")
        axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1))
    axes.set_yticks(range(len(shown)), [names[name] for name in shown])
    axes.invert_yaxis()
    axes.set_xlabel("cross-entropy (nats)")
    return _svg(figure, "Losses from fit to validation")


def learning_curves(history: Sequence[Mapping[str, float]], kept: int | None) -> str:
    """Training loss, and validation loss on lagging and on recalibrated statistics, by epoch."""
    epochs = [int(row["epoch"]) for row in history]
    figure, axes = _figure(7.6, 2.8)
    for column, label, colour in (
        # Bare, as the others are; what fit minimises may be weighted by class.
        (BARE_LOSS, "fit", _INK),
        ("val_loss", "validation, statistics as they lag", _BAD),
        ("recalibrated_val_loss", "validation, recalibrated", _GOOD),
    ):
        axes.plot(epochs, [row[column] for row in history], marker="o", color=colour, label=label)
    if kept is not None:
        axes.axvline(kept, color="#8899aa", linestyle=":", label="kept epoch")
    axes.set_xticks(epochs[:: max(1, len(epochs) // 10)])
    axes.set(xlabel="epoch", ylabel="loss (nats)", yscale=_scale(history))
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure, "Learning curves")


def roc_chart(labels: np.ndarray, scores: np.ndarray, classes: Sequence[str]) -> str:
    """Of two classes the positive one's curve, of more each one's against the rest; scores are (n, outputs)."""
    figure, axes = _figure(3.8, 3.4)
    axes.plot([0, 1], [0, 1], color=_GRID)
    if len(classes) == 2:
        axes.plot(*roc_curve(labels, scores[:, 0])[:2], color=_INK)
    else:
        for number, label in enumerate(classes):
            axes.plot(*roc_curve(labels == number, scores[:, number])[:2], label=f"{label} or not")
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    axes.set(xlabel="false-positive rate", ylabel="recall")
    return _svg(figure, "ROC curve on the test images")


def reliability_chart(labels: np.ndarray, scores: Mapping[str, np.ndarray]) -> str:
    """Observed against predicted before and after prior correction, with 95 % intervals of the observed shares.

    Args:
        labels: class numbers (n,).
        scores: probabilities (n, outputs) of the same images, as "before" and "after". Of more than two classes the
            largest is held against whether it was right.
    """
    several = scores["after"].shape[1] > 1
    figure, axes = _figure(3.8, 3.4)
    axes.plot([0, 1], [0, 1], color=_GRID)
    for name, label, colour in (("before", "before prior correction", _BAD), ("after", "after, as served", _GOOD)):
        found = reliability(*claims(scores[name], labels))
        axes.vlines(found.predicted, *found.intervals, color=colour, alpha=0.35, linewidth=3)
        axes.plot(found.predicted, found.observed, marker="o", markersize=4, color=colour, label=label)
    predicted = "largest probability (confidence)" if several else "predicted probability"
    axes.set(xlabel=predicted, ylabel="share that was right" if several else "observed share")
    axes.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return _svg(figure, "Reliability on the test images")


def drift_chart(layers: Sequence[Mapping[str, Any]]) -> str:
    """How far each BatchNorm layer's mean and variance were from the pooled ones and, where measured, are now."""
    figure, panels = plt.subplots(2, 1, figsize=(7.6, 3.8), layout="constrained", sharex=True)
    for axes, name, label in zip(
        panels, ("mean_drift", "variance_ratio"), ("drift of the mean (σ)", "variance ÷ pooled"), strict=True
    ):
        axes.spines[["top", "right"]].set_visible(False)
        for key, series, colour in ((name, "as training left them", _BAD), (f"remaining_{name}", "as served", _GOOD)):
            places, values = _by_depth(layers, key)
            if places:
                axes.plot(places, values, "o", markersize=4, color=colour, label=series)
        axes.set(ylabel=label, yscale="log")
    panels[1].axhline(1, color=_GRID, zorder=0)
    panels[1].yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    panels[1].yaxis.set_major_formatter("{x:g}")
    panels[1].yaxis.set_minor_locator(ticker.NullLocator())
    panels[1].set_xlabel("BatchNorm layer, input to output")
    panels[0].legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return _svg(figure, "Drift of BatchNorm statistics by layer")


def _by_depth(layers: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """The layers' places and values of `key`, of those that have one."""
    found = [(place, layer[key]) for place, layer in enumerate(layers, 1) if layer[key] is not None]
    return [place for place, _ in found], [max(value, _LEAST_DRIFT) for _, value in found]


def _scale(history: Sequence[Mapping[str, float]]) -> str:
    """Lagging statistics can put one curve two orders of magnitude above the other."""
    return "log" if max(row["val_loss"] for row in history) > 5 * max(row[BARE_LOSS] for row in history) else "linear"


def _figure(width: float, height: float) -> Any:
    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Any, title: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    plt.close(figure)
    drawing = re.sub(r"^.*?<svg ", "<svg ", buffer.getvalue(), count=1, flags=re.DOTALL)
    # The page scales the drawing; its title is what a screen reader says.
    drawing = re.sub(r'width="[^"]*" height="[^"]*"|height="[^"]*" width="[^"]*"', "", drawing, count=1)
    return drawing.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
