"""The facts of every image of a data set: what is known is looked up, the rest is read, decoded and looked at."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import numpy as np
import pandas as pd

from training import images, manifest
from training.appearance import SIDE, appearance
from training.config import DataConfig
from training.errors import StoreError
from training.known_images import KnownImages
from training.progress import followed
from training.shards import Part
from training.sources import Source
from training.store import Entry, NotFound, Store, TooLarge
from training.threads import in_order

log = logging.getLogger(__name__)
# Images a thread is given at once; handing over each by itself takes a tenth as long as describing it.
_AT_ONCE = 16
_READING = images.Memory(2**27)
# What is wrong with one file; anything else that a store says is wrong with the store.
_REASONS = {"outside": "path leads out of the data set", "forbidden": "reading it is not permitted"}


def read_all(
    data: Store, entries: Iterable[Entry], found: Sequence[Source], config: DataConfig, known: KnownImages
) -> pd.DataFrame:
    """One row a source: path, label, group and the facts of its file, each file read once at most.

    What is new is known from then on, with its signature.
    """
    rows = _rows(found)
    files = _files(rows, entries)
    facts = known.of(files)
    if len(facts) < len(files):
        facts = _with_new(data, files, facts, config, known)
    table = rows.merge(facts, how="left", on="path")
    return table.assign(error=table["error"].fillna(table["problem"]))


def read_new(
    data: Store, entries: Iterable[Entry], found: Sequence[Source], config: DataConfig, known: KnownImages, part: Part
) -> pd.DataFrame:
    """The facts of a part of the files that are not known, with their signatures."""
    files = _files(_rows(found), entries)
    return _read(data, part.cut(files[~files["path"].isin(known.of(files)["path"])]), config)


def _rows(found: Iterable[Source]) -> pd.DataFrame:
    listed = [(source.key or None, source.label or None, source.group, source.problem) for source in found]
    return pd.DataFrame(listed, columns=["path", "label", "group", "problem"]).astype("string")


def _with_new(
    data: Store, files: pd.DataFrame, facts: pd.DataFrame, config: DataConfig, known: KnownImages
) -> pd.DataFrame:
    unknown = files[~files["path"].isin(facts["path"])]
    log.info("%d of %d files are new or have changed", len(unknown), len(files))
    new = _read(data, unknown, config)
    return known.keep(facts, new)


def _files(rows: pd.DataFrame, entries: Iterable[Entry]) -> pd.DataFrame:
    """Path, bytes and version of every file to be read; the latter null for one that the listing does not have."""
    wanted = rows.loc[rows["problem"].isna(), ["path"]].drop_duplicates()
    paths = set(wanted["path"])
    listed = [(entry.key, entry.size, entry.version) for entry in entries if entry.key in paths]
    table = pd.DataFrame(listed, columns=["path", "bytes", "version"])
    return wanted.merge(table.astype({"path": "string", "bytes": "Int64", "version": "string"}), how="left", on="path")


def _read(data: Store, files: pd.DataFrame, config: DataConfig) -> pd.DataFrame:
    described = list(followed(_described(data, files, config), log, "ingest", len(files), "images"))
    facts = pd.DataFrame(described, files.index, ["signature", *manifest.FACTS])
    seen = facts["signature"].dropna()
    for name, values in appearance(np.frombuffer(b"".join(seen), np.uint8).reshape(-1, SIDE, SIDE)).items():
        facts[name] = pd.Series(values, seen.index)
    # A file too large to be read is known by its size as well.
    return manifest.typed(files[["path", "version"]].join(facts.assign(bytes=facts["bytes"].fillna(files["bytes"]))))


def _described(data: Store, files: pd.DataFrame, config: DataConfig) -> Iterator[dict[str, object]]:
    named = list(zip(files["path"], files["bytes"].fillna(config.max_bytes), strict=True))
    some = (named[start : start + _AT_ONCE] for start in range(0, len(named), _AT_ONCE))
    return chain.from_iterable(in_order(lambda own: _describe_some(data, own, config), some, data.readers))


def _describe_some(data: Store, named: Iterable[tuple[str, int]], config: DataConfig) -> list[dict[str, object]]:
    return [_describe(data, path, size, config) for path, size in named]


def _describe(data: Store, path: str, size: int, config: DataConfig) -> dict[str, object]:
    try:
        with _READING.taken(min(size, config.max_bytes)):
            return images.describe(data.read(path, config.max_bytes), config.max_pixels)
    except NotFound:
        return _unread("no such file")
    except TooLarge:
        return _unread(f"more bytes than data.max_bytes ({config.max_bytes}): not read")
    except StoreError as error:
        if error.cause in _REASONS:
            return _unread(_REASONS[error.cause])
        raise


def _unread(error: str) -> dict[str, object]:
    return {"sha256": None, "bytes": None, **images.unknown(error)}
