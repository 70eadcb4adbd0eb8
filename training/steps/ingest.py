"""Read every image of the data set once, give each its split, and write the manifest."""

import logging

import numpy as np

from training import manifest
from training.known_images import KnownImages
from training.ledger import Ledger
from training.looks import Looks
from training.reading import read_all, read_new
from training.run_folder import Run
from training.shards import Part
from training.sources import fingerprint, list_sources
from training.splitting import assign_splits
from training.steps import sharding
from training.steps.sharding import Found
from training.store import open_store

log = logging.getLogger(__name__)
INPUTS: tuple[str, ...] = ()
OUTPUTS = ("manifest.parquet",)


def outside(run: Run) -> str:
    """The step's input outside the run's folder: the data set as it is now."""
    return fingerprint(open_store(run.config.data.location).list())


def shard(run: Run, part: Part) -> Found:
    """The facts of a part of the images that are new, as a table's bytes."""
    data, known = open_store(run.config.data.location), _known(run)
    entries = list(data.list())
    facts = read_new(data, entries, list_sources(data, entries), run.config.data, known, part)
    return {"facts": np.frombuffer(manifest.to_parquet(facts), np.uint8)}


def work(run: Run) -> None:
    data, known = open_store(run.config.data.location), _known(run)
    if run.config.scale.shards > 1:
        shards = sharding.found(run, "ingest", INPUTS, shard)
        known.add(manifest.from_parquet(found["facts"].tobytes()) for found in shards)
    entries = list(data.list())
    sources = list_sources(data, entries)
    log.info("%d labelled images in %s", len(sources), run.config.data.location)
    ledger = Ledger(open_store(run.config.store.data), run.config.split)
    read = read_all(data, entries, sources, run.config.data, known)
    placed = assign_splits(read, ledger, run.config.split, lambda: Looks(data, read, known.signatures))
    table = manifest.from_table(placed)
    run.store.write("manifest.parquet", manifest.to_parquet(table))
    log.info("%d images, %d not decodable", len(table), table["error"].notna().sum())


def _known(run: Run) -> KnownImages:
    return KnownImages(open_store(run.config.store.data), run.config.data)
