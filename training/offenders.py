"""The images that break an expectation, shown beneath it in Data Docs."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

LIMIT = 12


@dataclass(frozen=True)
class Offender:
    """An image that breaks an expectation.

    Attributes:
        rule: as in the `meta` of the expectation.
        thumbnail: PNG; None for an image that cannot be decoded.
    """

    rule: str
    path: str
    reason: str
    thumbnail: bytes | None


def add_offenders(docs_dir: Path, offenders: Sequence[Offender]) -> None:
    """Show the first `LIMIT` images that break an expectation beneath it, on every page that tells its result."""
    for page in docs_dir.glob("validations/**/*.html"):
        text = page.read_text(encoding="utf-8")
        for rule in dict.fromkeys(offender.rule for offender in offenders):
            found = [offender for offender in offenders if offender.rule == rule]
            text = text.replace(_strip(rule, ()), _strip(rule, found[:LIMIT]))
        page.write_text(text, encoding="utf-8")


def _strip(rule: str, offenders: Sequence[Offender]) -> str:
    """The images of one rule; of none, the place that `training.data_docs` left for them."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("training", "templates/data_docs"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    tiles = [(offender, base64.b64encode(offender.thumbnail or b"").decode()) for offender in offenders]
    return environment.get_template("offenders.j2").render(rule=rule, tiles=tiles)
