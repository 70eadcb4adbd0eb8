"""The report's pictures, as SVG that goes into one self-contained page; the only module that imports matplotlib."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_curve

matplotlib.use("svg")
from matplotlib import pyplot as plt

_INK, _GOOD, _BAD, _GRID = "#2b3a55", "#2e7d5b", "#c0392b", "#d9dee7"
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
        ("loss", "fit", _INK),
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


def roc_chart(labels: np.ndarray, scores: np.ndarray) -> str:
    false_positive, recall, _ = roc_curve(labels, scores)
    figure, axes = _figure(3.3, 3.0)
    axes.plot([0, 1], [0, 1], color=_GRID)
    axes.plot(false_positive, recall, color=_INK)
    axes.set(xlabel="false-positive rate", ylabel="recall")
    return _svg(figure, "ROC curve on the test images")


def reliability_chart(labels: np.ndarray, scores: np.ndarray) -> str:
    observed, predicted = calibration_curve(labels, scores, n_bins=8, strategy="quantile")
    figure, axes = _figure(3.3, 3.0)
    axes.plot([0, 1], [0, 1], color=_GRID)
    axes.plot(predicted, observed, marker="o", color=_INK)
    axes.set(xlabel="predicted probability", ylabel="observed share")
    return _svg(figure, "Reliability on the test images")


def drift_chart(layers: Sequence[Mapping[str, Any]]) -> str:
    """How far each BatchNorm layer's statistics were from the pooled ones, by depth."""
    figure, axes = _figure(7.6, 2.6)
    places = range(1, len(layers) + 1)
    axes.bar(places, [layer["mean_drift"] for layer in layers], color=_INK)
    axes.set(xlabel="BatchNorm layer, input to output", ylabel="drift of the mean (σ)")
    return _svg(figure, "Drift of BatchNorm statistics by layer")


def _scale(history: Sequence[Mapping[str, float]]) -> str:
    """Lagging statistics can put one curve two orders of magnitude above the other."""
    return "log" if max(row["val_loss"] for row in history) > 5 * max(row["loss"] for row in history) else "linear"


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
