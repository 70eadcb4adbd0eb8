"""Memory and time of the parts of a night that no shard can take over, on a manifest of ten million images.

    python benchmarks/scale.py [--rows 10000000] [--shards 100] [--new 0.01]

Synthetic facts stand for what shards have read: paths, hashes, sizes, and random perceptual hashes, one image in a
thousand a copy of another. Each stage is a process of its own, so its peak memory is its own: `merge` takes in the
shards' facts, `split` gives every image its split (near-duplicates searched for among all), `plan` plans the epochs and
draws one, and `cut` cuts evaluation and recalibration into shards. Then a second night with a few new images.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from training import manifest
from training.appearance import SIDE
from training.config import DataConfig, SplitConfig
from training.known_images import KnownImages
from training.ledger import Ledger
from training.looks import Looks
from training.sampling import SamplingPlan, make_plan
from training.shards import parts
from training.splitting import assign_splits
from training.store import LocalStore

DATA = DataConfig(uri="synthetic", classes=("intact", "defective"))
COPIES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--new", type=float, default=0.01, help="share of new images in the second night")
    options = parser.parse_args()
    print(f"{options.rows:,} images, {options.shards} shards\n{'stage':34}{'seconds':>9}{'peak memory':>14}")
    with tempfile.TemporaryDirectory() as folder:
        later = int(options.rows * (1 + options.new))
        stage("merge", merge, folder, 0, options.rows, options.shards)
        stage("split", give_splits, folder)
        stage("plan", plan, folder)
        stage("cut", cut, folder, options.shards)
        stage("merge, second night", merge, folder, options.rows, later, 1)
        stage("split, second night", give_splits, folder)


def stage(name: str, work: Callable[..., str], *arguments: Any) -> None:
    """Do `work` in a new process, and tell its time and its own peak memory."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        seconds, peak, said = pool.apply(_measured, (work, *arguments))
    print(f"{name:34}{seconds:9.1f}{peak:10.1f} GiB  {said}", flush=True)


def _measured(work: Callable[..., str], *arguments: Any) -> tuple[float, float, str]:
    begun = time.perf_counter()
    said = work(*arguments)
    return time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, said


def merge(folder: str, first: int, last: int, shards: int) -> str:
    known(folder).add(facts(first, last, shards))
    return f"{(Path(folder) / known(folder).folder / 'facts.parquet').stat().st_size / 2**30:.2f} GiB of facts kept"


def give_splits(folder: str) -> str:
    store, table = LocalStore(Path(folder)), everything(folder)
    read = table.assign(group=pd.array([None] * len(table), "string"))
    placed = assign_splits(
        read, Ledger(store, SplitConfig()), SplitConfig(), lambda: Looks(store, read, known(folder).signatures)
    )
    placed = placed.assign(label=np.where(table["bytes"] % 3 == 0, "defective", "intact"))
    store.write("manifest.parquet", manifest.to_parquet(manifest.from_table(placed)))
    found, shares = placed["near_duplicate_of"].notna().sum(), placed["split"].value_counts(normalize=True)
    return f"{found:,} near-duplicates; " + ", ".join(f"{name} {share:.1%}" for name, share in shares.items())


def plan(folder: str) -> str:
    table = manifest.from_parquet(LocalStore(Path(folder)).read("manifest.parquet"), ["sha256", "label", "split"])
    table = manifest.of_split(table, "train")
    labels = dict(zip(table["sha256"], table["label"], strict=True))
    made = make_plan(labels, DATA.classes, strategy="oversample", batch_size=32, seed=0)
    LocalStore(Path(folder)).write("sampling.json", made.model_dump_json().encode())
    begun = time.perf_counter()
    made.epoch(0)
    return f"{len(made.images):,} training images; one epoch drawn in {time.perf_counter() - begun:.1f} s"


def cut(folder: str, shards: int) -> str:
    made = SamplingPlan.model_validate_json(LocalStore(Path(folder)).read("sampling.json"))
    batches = [len(part.batches(len(made.images), made.batch_size)) for part in parts(shards)]
    return f"{sum(batches):,} batches, {min(batches):,} to {max(batches):,} a shard"


def known(folder: str) -> KnownImages:
    return KnownImages(LocalStore(Path(folder)), DATA)


def everything(folder: str) -> pd.DataFrame:
    """What `ingest` has of all images once the shards' facts are known."""
    store = LocalStore(Path(folder))
    table = manifest.from_parquet(store.read(f"{known(folder).folder}facts.parquet"))
    return table.drop(columns="version")


def facts(first: int, last: int, shards: int) -> Iterator[pd.DataFrame]:
    """Of images from `first` to `last`, a table a shard, each with signatures."""
    for part in parts(shards):
        rows = part.cut(range(first, last))
        yield _facts(rows.start, rows.stop)


def _facts(first: int, last: int) -> pd.DataFrame:
    numbers = np.arange(first, last, dtype=np.uint64)
    # Of a copy, the hash and the looks are those of the image before it.
    shown = np.where(numbers % COPIES == COPIES - 1, numbers - 1, numbers)
    hashes = _mixed(shown)
    random = np.random.default_rng(first)
    looks = random.integers(0, 200, (last - first, SIDE, SIDE), dtype=np.uint8)
    copies = np.flatnonzero(shown != numbers)
    looks[copies] = looks[copies - 1]
    table = pd.DataFrame(
        {
            "path": [f"images/{number:09d}.png" for number in numbers.tolist()],
            "version": [f"{number:016x}" for number in numbers.tolist()],
            "sha256": [
                f"{one:016x}{two:016x}" * 2 for one, two in zip(_mixed(numbers + 1), _mixed(~numbers), strict=True)
            ],
            "perceptual_hash": [f"{number:016x}" for number in hashes.tolist()],
            "width": 300,
            "height": 300,
            "mode": "L",
            "format": "PNG",
            "bytes": random.integers(10_000, 90_000, last - first),
            "brightness": random.normal(0.5, 0.1, last - first),
            "contrast": random.normal(0.2, 0.05, last - first),
            "error": None,
            "signature": [look.tobytes() for look in looks],
        }
    )
    return manifest.typed(table.astype({"version": "string"}))


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """SplitMix64 (Steele, Lea & Flood 2014): numbers that look random, none twice."""
    mixed = numbers * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


if __name__ == "__main__":
    main()
