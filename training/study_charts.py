"""A study at a glance: what `fit` and `evaluate` say of the same images, and how good the served model is."""

import io
from collections.abc import Sequence
from statistics import fmean
from typing import Any, Literal

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from training.study_table import Row, Study

# Field, the verdict that goes with it, words, shape, colour, height. Colour-blind readers tell these colours apart
# (Okabe & Ito 2008), and the shapes say the same again.
_SERIES = (
    ("fit_loss", None, "fit (A)", "o", "#0072B2", -0.2),
    ("loss_before", "accepted_without_recalibration", "evaluate, before recalibration (D)", "D", "#D55E00", 0.0),
    ("loss_after", "accepted", "evaluate, after (E)", "^", "#009E73", 0.2),
)
_INK, _GRID, _BAND = "#222222", "#d9dee7", "#f4f6f9"
_WIDTH, _PNG_DPI = 9.0, 200
_STYLE = {"svg.hashsalt": "nightshift", "svg.fonttype": "none", "font.size": 10, "text.color": _INK}


def draw(study: Study, kind: Literal["svg", "png"]) -> bytes:
    """The picture, nine inches wide; equal studies give equal bytes."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 1.9 + 0.62 * len(study.variants)), layout="constrained")
        losses, quality = figure.subplots(1, 2, sharey=True, width_ratios=(1.7, 1))
        _losses(losses, study)
        _quality(quality, study)
        figure.suptitle(f"{study.name}: does evaluate agree with fit?", fontweight="bold", x=0.01, ha="left")
        figure.legend(handles=_legend(), loc="outside lower left", ncols=4, frameon=False, fontsize=9)
        metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {"Software": None}
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=_PNG_DPI, metadata=metadata, facecolor="white")
    return buffer.getvalue()


def _losses(axes: Any, study: Study) -> None:
    """A mark a seed; a logarithmic axis, since lagging statistics can cost a hundredfold."""
    for place, name in enumerate(study.variants):
        rows = study.of(name)
        _gap(axes, place, rows)
        for row, aside in zip(rows, _asides(len(rows)), strict=True):
            _marks(axes, place + aside * 0.2, row)
    axes.set_xscale("log")
    axes.margins(x=0.15)  # for the words behind the last mark
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(len(study.variants)), [_name(study, name) for name in study.variants])
    axes.set_ylim(len(study.variants) - 0.5, -0.5)
    _finish(axes, study, "Loss on the same training images; in figures: D − A", "nats, log scale; a mark a seed")


def _marks(axes: Any, height: float, row: Row) -> None:
    for field, verdict, _, marker, colour, shift in _SERIES:
        if row[field] is not None:
            face = colour if verdict is None or row[verdict] else "white"
            axes.plot(row[field], height + shift, marker, color=colour, markerfacecolor=face, markersize=6)


def _gap(axes: Any, place: int, rows: Sequence[Row]) -> None:
    """A line from fit to evaluate before recalibration, and its mean length; or how many runs had no losses."""
    found = [
        (row.fit_loss, row.loss_before) for row in rows if row.fit_loss is not None and row.loss_before is not None
    ]
    words = "" if len(found) == len(rows) else f"not finite: {len(rows) - len(found)} of {len(rows)}"
    end = 0.02
    if found:
        fit, before = fmean(fit for fit, _ in found), fmean(before for _, before in found)
        axes.plot([fit, before], [place] * 2, color=_SERIES[1][4], linewidth=1, alpha=0.6)
        words = " · ".join(part for part in (f"{before - fit:+.2f}", words) if part)
        end = max(max(pair) for pair in found)
    where = axes.transData if found else axes.get_yaxis_transform()
    axes.annotate(words, (end, place), (9, 0), xycoords=where, textcoords="offset points", va="center", fontsize=9)


def _quality(axes: Any, study: Study) -> None:
    """A line a seed: test ROC AUC with its interval."""
    for place, name in enumerate(study.variants):
        rows = study.of(name)
        for row, aside in zip(rows, _asides(len(rows)), strict=True):
            if row.test_roc_auc is not None and row.test_roc_auc_interval is not None:
                face = _INK if row.accepted else "white"
                axes.plot(row.test_roc_auc_interval, [place + aside] * 2, color=_INK, linewidth=1.2)
                axes.plot(row.test_roc_auc, place + aside, "o", color=_INK, markerfacecolor=face, markersize=5.5)
    axes.tick_params(axis="y", length=0)
    _finish(axes, study, "Test ROC AUC, as served", "a line a seed: its 95 % interval")


def _legend() -> list[Line2D]:
    shapes = [
        Line2D([], [], marker=marker, color=colour, label=label, lw=0) for _, _, label, marker, colour, _ in _SERIES
    ]
    return [
        *shapes,
        Line2D([], [], marker="o", color=_INK, markerfacecolor="white", label="hollow: gate refuses", lw=0),
    ]


def _finish(axes: Any, study: Study, title: str, label: str) -> None:
    for place in range(0, len(study.variants), 2):
        axes.axhspan(place - 0.5, place + 0.5, color=_BAND, zorder=0)
    axes.set_title(title, fontsize=10.5, loc="left")
    axes.set_xlabel(label, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color=_GRID)
    axes.set_axisbelow(True)


def _name(study: Study, variant: str) -> str:
    method = study.variants[variant].method
    return f"{variant}\n{'method ' if method[0].isdigit() else ''}{method}"


def _asides(rows: int) -> list[float]:
    """Heights around zero that keep the seeds of one variant apart."""
    step = min(0.2, 0.7 / rows)
    return [step * (number - (rows - 1) / 2) for number in range(rows)]
