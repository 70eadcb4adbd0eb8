"""The runbook as a page, with each cause's word as an anchor for the alerts' links."""

import re
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from markupsafe import Markup

RUNBOOK = Path(__file__).parents[1] / "docs" / "runbook.md"
_WORD = re.compile(r"[a-z][a-z0-9_]*")


def runbook() -> Markup | None:
    """The rendered page; None where the file is not deployed."""
    try:
        return _rendered(RUNBOOK.read_text())
    except OSError:
        return None


@lru_cache(1)
def _rendered(text: str) -> Markup:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(text)
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open" and opening.tag != "h1":
            _anchor(opening, inline)
    # No HTML of the text's own comes through.
    return Markup(parser.renderer.render(tokens, parser.options, {}))


def _anchor(opening: object, inline: object) -> None:
    """A heading may name several causes; its id is the first, the others are anchors of their own within it."""
    from markdown_it.token import Token

    first, *others = _WORD.findall(inline.content) or [""]  # type: ignore[attr-defined]
    opening.attrSet("id", first)  # type: ignore[attr-defined]
    for word in others:
        span = [Token("span_open", "span", 1, attrs={"id": word}), Token("span_close", "span", -1)]
        inline.children[:0] = span  # type: ignore[attr-defined]
