"""What the pages answer with: templates, assets, and the headers that keep anything else from running."""

import gzip
import hashlib
import mimetypes
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse, Response

_FILES = Path(__file__).parent / "nightshift_health_files"
_OWN = (
    "health.css", "theme.js", "words.js", "airflow.js", "table.js", "charts.js", "health.js", "compare.js",
    "icon.svg", "icon_dark.svg",
)  # fmt: skip
_PLOTLY = "plotly.min.js"
# The whole of what there is: a name is looked up here, never on a disk.
ASSETS = (*_OWN, _PLOTLY)
PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
)
# The origin stays, or a browser would send no session with the document's links; without scripts it is of no use.
DOCUMENT = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'; sandbox allow-same-origin"
)
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Content-Security-Policy": PAGE,
    "Cache-Control": "private, no-cache",
}
_YEAR = "private, max-age=31536000, immutable"
_TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
# What Data Docs are made of.
_SERVED = (".html", ".css", ".png", ".gif", ".jpg", ".jpeg", ".svg", ".ico")


def guarded(response: Response) -> Response:
    """The response with every header that it does not bring itself."""
    for name, value in _ALWAYS.items():
        response.headers.setdefault(name, value)
    return response


def page(template: str, request: Request, status: int = 200, **values: Any) -> Response:
    """A page of ours; every value in it is text."""
    root = request.scope.get("root_path", "")
    known = {"root": root, "airflow": root.removesuffix("/training-health"), "asset": lambda name: _address(root, name)}
    return HTMLResponse(_templates().get_template(f"{template}.html.jinja").render(known | values), status)


def document(content: bytes, path: str) -> Response | None:
    """A file that a night left, in which nothing runs; None for a kind of file that is not shown."""
    suffix = Path(path).suffix.lower()
    if suffix not in _SERVED:
        return None
    return Response(content, media_type=_type(suffix), headers={"Content-Security-Policy": DOCUMENT})


def asset(name: str, request: Request) -> Response | None:
    """One of our files, already packed if the browser takes it so."""
    if name not in ASSETS:
        return None
    packed = "gzip" in request.headers.get("accept-encoding", "")
    lasting = request.query_params.get("v") == _digest(name)
    headers = {"Vary": "Accept-Encoding", "Cache-Control": _YEAR if lasting else "private, max-age=3600"}
    headers |= {"Content-Encoding": "gzip"} if packed else {}
    return Response(_packed(name) if packed else _content(name), media_type=_type(Path(name).suffix), headers=headers)


def _address(root: str, name: str) -> str:
    """With the content's hash, so that a browser may keep it for ever and still gets the next one."""
    return f"{root}/assets/{name}?v={_digest(name)}"


def _type(suffix: str) -> str:
    return _TYPES.get(suffix) or mimetypes.types_map.get(suffix, "application/octet-stream")


@cache
def _content(name: str) -> bytes:
    return (_plotly() if name == _PLOTLY else _FILES / "assets" / name).read_bytes()


@cache
def _packed(name: str) -> bytes:
    return gzip.compress(_content(name), 6, mtime=0)


@cache
def _digest(name: str) -> str:
    return hashlib.sha256(_content(name)).hexdigest()[:12]


def _plotly() -> Path:
    """Plotly's wheel brings its script; the package itself need not be imported."""
    found = find_spec("plotly")
    assert found is not None and found.submodule_search_locations
    return Path(found.submodule_search_locations[0]) / "package_data" / _PLOTLY


@cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FILES / "templates"), autoescape=True, undefined=jinja2.StrictUndefined
    )
