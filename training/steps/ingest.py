"""Read every image of the data set once, and write the manifest."""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from training import images, manifest, sources, split
from training.errors import StoreError
from training.progress import followed
from training.run_folder import Run
from training.sources import Source
from training.store import NotFound, Store, open_store

log = logging.getLogger(__name__)
INPUTS: tuple[str, ...] = ()
OUTPUTS = ("manifest.parquet",)
_READERS = 8
_AHEAD = 64


def outside(run: Run) -> str:
    """The step's input outside the run's folder: the data set as it is now."""
    return sources.fingerprint(open_store(run.config.data.uri))


def work(run: Run) -> None:
    data = open_store(run.config.data.uri)
    found = sources.list_sources(data)
    log.info("%d labelled images in %s", len(found), run.config.data.uri)
    described = followed(_describe_all(data, found), log, "ingest", len(found), "images")
    rows = [_row(run, source, facts) for source, facts in zip(found, described, strict=True)]
    run.store.write("manifest.parquet", manifest.to_parquet(manifest.from_rows(rows)))
    log.info("%d images, %d not decodable", len(rows), sum(row["error"] is not None for row in rows))


def _describe_all(data: Store, found: Sequence[Source]) -> Iterator[dict[str, object]]:
    """Facts of each source, in order, with only a few images in memory at a time."""
    remaining = iter(found)
    with ThreadPoolExecutor(_READERS) as readers:
        while chunk := list(islice(remaining, _AHEAD)):
            yield from readers.map(lambda source: _describe(data, source), chunk)


def _describe(data: Store, source: Source) -> dict[str, object]:
    try:
        return images.describe(data.read(source.key))
    except NotFound:
        return {"sha256": None, "bytes": None, **images.unknown("no such file")}
    except StoreError as error:
        if error.cause == "outside":
            return {"sha256": None, "bytes": None, **images.unknown("path leads out of the data set")}
        raise


def _row(run: Run, source: Source, facts: dict[str, object]) -> dict[str, object]:
    key = source.group or str(facts["sha256"] or source.key)
    where = {"path": source.key, "label": source.label or None, "group": source.group}
    return {**facts, **where, "split": split.assign(key, run.config.split)}
