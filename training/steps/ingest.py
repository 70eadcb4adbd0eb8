"""Read every image of the data set once, give each its split, and write the manifest."""

import logging

from training import manifest
from training.known_images import KnownImages
from training.ledger import Ledger
from training.looks import Looks
from training.reading import read_all
from training.run_folder import Run
from training.sources import fingerprint, list_sources
from training.splitting import assign_splits
from training.store import open_store

log = logging.getLogger(__name__)
INPUTS: tuple[str, ...] = ()
OUTPUTS = ("manifest.parquet",)


def outside(run: Run) -> str:
    """The step's input outside the run's folder: the data set as it is now."""
    return fingerprint(open_store(run.config.data.location).list())


def work(run: Run) -> None:
    data, kept = open_store(run.config.data.location), open_store(run.config.store.data)
    entries = list(data.list())
    sources = list_sources(data, entries)
    log.info("%d labelled images in %s", len(sources), run.config.data.location)
    known, ledger = KnownImages(kept, run.config.data), Ledger(kept, run.config.split)
    read = read_all(data, entries, sources, run.config.data, known)
    placed = assign_splits(read, ledger, run.config.split, lambda: Looks(data, read, known.signatures()))
    table = manifest.from_table(placed)
    run.store.write("manifest.parquet", manifest.to_parquet(table))
    log.info("%d images, %d not decodable", len(table), table["error"].notna().sum())
