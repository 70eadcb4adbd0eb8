"""Which images a data set holds, and their labels: labels.csv, or one sub-folder a class."""

import csv
import hashlib
import io
from dataclasses import dataclass
from pathlib import PurePosixPath

from training.errors import DataRejected, received
from training.store import Entry, NotFound, Store

LABELS = "labels.csv"
SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif"}
_EXPECTED = f"an existing folder or prefix with {LABELS} (path,label[,group]) or one sub-folder of images a class"


@dataclass(frozen=True)
class Source:
    """One image before it is read; `key` is its path inside the data set."""

    key: str
    label: str
    group: str | None = None


def list_sources(data: Store) -> list[Source]:
    """Every labelled image of a data set, in order of keys.

    Raises:
        DataRejected: there is no such data set, or it has no labels.
    """
    try:
        sources = _from_labels(data.read(LABELS), data.uri(LABELS))
    except NotFound:
        sources = _from_folders(data)
    return sorted(sources, key=lambda source: (source.key, source.label))


def fingerprint(data: Store) -> str:
    """Changes when a file of the data set is added, removed or rewritten; reads none of them."""
    digest = hashlib.sha256()
    for entry in data.list():
        digest.update(f"{entry.key}\0{entry.size}\0{entry.version}\n".encode())
    return digest.hexdigest()


def _from_labels(content: bytes, uri: str) -> list[Source]:
    try:
        rows = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        columns = rows.fieldnames or []
    except UnicodeDecodeError:
        raise DataRejected(received(uri, "bytes that are not UTF-8", "a UTF-8 CSV of path,label[,group]")) from None
    if not {"path", "label"} <= set(columns):
        raise DataRejected(received(uri, ",".join(columns), "the columns path,label[,group]"))
    sources = [Source(row["path"] or "", row["label"] or "", row.get("group") or None) for row in rows]
    if not sources:
        raise DataRejected(received(uri, "no labels", "at least one row of path,label[,group]"))
    return sources


def _from_folders(data: Store) -> list[Source]:
    entries = list(data.list())
    if not entries:
        raise DataRejected(received("data.uri", data.uri(), _EXPECTED), remedy="Check the path, or upload the images.")
    sources = [Source(entry.key, PurePosixPath(entry.key).parts[0]) for entry in entries if _is_labelled_image(entry)]
    if not sources:
        raise DataRejected(f"data.uri: received no labels in {data.uri()!r}, expected {_EXPECTED}")
    return sources


def _is_labelled_image(entry: Entry) -> bool:
    path = PurePosixPath(entry.key)
    hidden = any(part.startswith(".") for part in path.parts)
    return len(path.parts) > 1 and path.suffix.lower() in SUFFIXES and not hidden
