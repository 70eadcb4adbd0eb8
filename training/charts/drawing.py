"""Figures in one style, and their two forms: SVG that takes its colours from the page, PNG on white."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

INK, QUIET, GRID = "#1b2433", "#55627a", "#d5dbe5"
# Colour-blind readers tell these apart (after Okabe & Ito 2008); words or shapes say the same again.
# Whiskers in ink must show on these, and these on the card.
LEVEL, WORSE, BETTER = "#5b8bbf", "#c2500b", "#13795b"
LIMIT = "#b3261e"
SERIES = ("#0a6ebd", "#c2500c", "#13795c", "#9b4f86", "#8a6500", "#5b5bc0", "#b03a48", "#4d6a70")
# Each is a variable of the page's style sheet, which has a light and a dark value for it.
VARIABLES = {
    INK: "ink",
    QUIET: "quiet",
    GRID: "line",
    LIMIT: "refused",
    LEVEL: "level",
    WORSE: "worse",
    BETTER: "better",
} | {colour: f"series-{number}" for number, colour in enumerate(SERIES, 1)}
PNG_WIDTH = 1200
# A logarithmic axis over more than this has numbers at powers of ten alone.
_WIDE = 30
_DOTS = 72  # an inch has so many of SVG's units
_STYLE = {
    "svg.hashsalt": "nightshift",
    "svg.fonttype": "none",
    "figure.constrained_layout.w_pad": 0.12,
    "figure.constrained_layout.h_pad": 0.08,
    # Classes and layers are named by others; a dollar sign in a name is no formula.
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 11,
    "text.color": INK,
    "axes.labelcolor": QUIET,
    "axes.edgecolor": GRID,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": QUIET,
    "ytick.labelcolor": QUIET,
    "grid.color": GRID,
}
# No date and no program's version: equal runs give equal pictures.
_NO_SVG_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


@contextmanager
def style() -> Iterator[None]:
    """Figures must be made inside; matplotlib reads most settings as it makes things."""
    with matplotlib.rc_context(_STYLE):
        yield


def figure(width: float, height: float) -> Figure:
    """An empty figure of so many SVG units, which are pixels where the page shows it at its own size."""
    return Figure(figsize=(width / _DOTS, height / _DOTS), layout="constrained")


def svg(drawn: Figure, label: str) -> str:
    """The drawing as an element of the page; `label` is what a screen reader says in its place."""
    buffer = io.StringIO()
    with style():
        drawn.savefig(buffer, format="svg", metadata=_NO_SVG_METADATA, transparent=True)
    drawing = re.sub(r"^.*?<svg ", "<svg ", buffer.getvalue(), count=1, flags=re.DOTALL)
    # The page scales it, and its fonts are the page's.
    drawing = re.sub(r' (width|height)="[^"]*pt"', "", drawing, count=2)
    drawing = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", drawing)
    drawing = _with_own_names(_with_variables(drawing), label)
    return drawing.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)


def png(drawn: Figure) -> bytes:
    """The drawing 1,200 pixels wide on white."""
    buffer = io.BytesIO()
    dots = PNG_WIDTH / drawn.get_figwidth()
    with style():
        drawn.savefig(buffer, format="png", dpi=dots, metadata={"Software": None}, facecolor="white")
    return buffer.getvalue()


def plain_axis(axis: Any) -> None:
    """A logarithmic axis whose numbers are written out; to be called when all is drawn."""
    low, high = axis.get_view_interval()
    subs = (1, 2, 5) if high < _WIDE * low else (1,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=6))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _with_variables(drawing: str) -> str:
    for colour, name in VARIABLES.items():
        drawing = drawing.replace(colour, f"var(--{name})")
    return drawing


def _with_own_names(drawing: str, label: str) -> str:
    """A page holds several drawings, whose parts matplotlib names alike."""
    own = re.sub(r"\W+", "-", label.lower())[:24].strip("-")
    for before in ('id="', 'href="#', "url(#"):
        drawing = drawing.replace(before, f"{before}{own}-")
    return drawing
