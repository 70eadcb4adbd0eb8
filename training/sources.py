"""Which images a data set holds, and their labels: labels.csv, or one sub-folder a class."""

import csv
import hashlib
import io
import unicodedata
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from training.errors import DataRejected, received
from training.store import Entry, NotFound, Store

LABELS = "labels.csv"
SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif"}
_EXPECTED = f"an existing folder or prefix with {LABELS} (path,label[,group]) or one sub-folder of images a class"
_DELIMITERS = ",;\t"
_MOST_LABELS = 2**30


@dataclass(frozen=True, slots=True)
class Source:
    """One image before it is read; `key` is its path inside the data set, `problem` why it should not be read."""

    key: str
    label: str
    group: str | None = None
    problem: str | None = None


def list_sources(data: Store, entries: Sequence[Entry]) -> list[Source]:
    """Every labelled image of a data set whose files are `entries`, in order of keys.

    Raises:
        DataRejected: there is no such data set, or it has no labels.
    """
    try:
        sources = _from_labels(data.read(LABELS, _MOST_LABELS), data.uri(LABELS), {entry.key for entry in entries})
    except NotFound:
        sources = _from_folders(entries, data.uri())
    return sorted(sources, key=lambda source: (source.key, source.label))


def fingerprint(entries: Iterable[Entry]) -> str:
    """Changes when a file of the data set is added, removed or rewritten; reads none of them."""
    digest = hashlib.sha256()
    for entry in entries:
        line = f"{entry.key}\0{entry.size}\0{entry.version}\n"
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def _from_labels(content: bytes, uri: str, keys: Container[str]) -> list[Source]:
    try:
        sources = list(_rows(_text(content, uri), uri, keys))
    except csv.Error as error:
        raise DataRejected(received(uri, f"a line that is no CSV ({error})", "path,label[,group]")) from None
    if not sources:
        raise DataRejected(received(uri, "no labels", "at least one row of path,label[,group]"))
    return sources


def _text(content: bytes, uri: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataRejected(received(uri, "bytes that are not UTF-8", "a UTF-8 CSV of path,label[,group]")) from None


def _rows(text: str, uri: str, keys: Container[str]) -> Iterator[Source]:
    """One source a line, with either separator that spreadsheets use."""
    header = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=header.count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows.fieldnames = [name.strip().lower() for name in rows.fieldnames or ()]
    if not {"path", "label"} <= set(rows.fieldnames):
        raise DataRejected(received(uri, header.strip()[:200], "the columns path,label[,group]"))
    for row in rows:
        yield _source(row, keys)


def _source(row: dict[str | None, str | None], keys: Container[str]) -> Source:
    path, label, group = ((row.get(name) or "").strip() for name in ("path", "label", "group"))
    problem = f"more fields than {LABELS} has columns" if None in row else None if path else "no path"
    return Source(_stored(path, keys), label, group or None, problem)


def _stored(path: str, keys: Container[str]) -> str:
    """The key that a listed path means: as it is, or in another spelling that exists."""
    if not path or path in keys:
        return path
    spelt = PurePosixPath(path.replace("\\", "/")).as_posix()
    forms = (path, spelt, unicodedata.normalize("NFC", spelt), unicodedata.normalize("NFD", spelt))
    return next((form for form in forms if form in keys), path)


def _from_folders(entries: Sequence[Entry], uri: str) -> list[Source]:
    if not entries:
        raise DataRejected(received("data.uri", uri, _EXPECTED), remedy="Check the path, or upload the images.")
    sources = [_in_folder(entry.key) for entry in entries if _is_labelled_image(entry)]
    if not sources:
        raise DataRejected(f"data.uri: received no labels in {uri!r}, expected {_EXPECTED}")
    return sources


def _in_folder(key: str) -> Source:
    shown = key.encode(errors="backslashreplace").decode()
    problem = None if shown == key else "a file name that is not UTF-8, expected UTF-8"
    return Source(shown, PurePosixPath(shown).parts[0], problem=problem)


def _is_labelled_image(entry: Entry) -> bool:
    path = PurePosixPath(entry.key)
    hidden = any(part.startswith(".") for part in path.parts)
    return len(path.parts) > 1 and path.suffix.lower() in SUFFIXES and not hidden
