"""How fast images are taken in, beside the least that anybody could do, and how fast when nothing is new.

    python benchmarks/ingest.py [--data data/solar_cells] [--repeats 3]

The least: read, SHA-256, decode with Pillow, on as many threads. `ingest` does that, and looks for damage, bombs and
animation, turns upright, hashes the appearance, measures brightness and contrast, compares look-alikes, assigns splits,
writes ledger and manifest. Then the images are shrunk to what the network sees, one at a time by one thread: as
training's are, and by the graph of the served model. Interleaved repeats in one run; the medians' ratios.
"""

import argparse
import hashlib
import io
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from training.config import load_config
from training.images import decode
from training.preprocessing import shrink, to_pixels
from training.steps import run_step
from training.store import LocalStore

_SIDE, _SHRUNK = 112, 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/solar_cells"))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    paths = sorted((options.data / "images").iterdir())
    seconds: dict[str, list[float]] = {"bare": [], "first": [], "second": []}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(options.repeats + 1):
            run = f"{folder}/{repeat}"
            found = {
                "bare": timed(bare, paths),
                "first": timed(ingest, options.data, run, "first"),
                "second": timed(ingest, options.data, run, "second"),
            }
            if repeat:  # the first imports
                for name, value in found.items():
                    seconds[name].append(value)
    tell(len(paths), {name: median(values) for name, values in seconds.items()})
    tell_shrinking([decode(path.read_bytes()) for path in paths[:_SHRUNK]], options.repeats)


def tell(images: int, seconds: dict[str, float]) -> None:
    print(f"{images} images, {LocalStore.readers} threads")
    for name, value in seconds.items():
        print(f"{name:7}{value:7.2f} s{images / value:9,.0f} images/s")
    print(f"the first ingest runs at {seconds['bare'] / seconds['first']:.0%} of the bare speed")
    print(f"the second is {seconds['first'] / seconds['second']:.0f} times faster than the first")


def tell_shrinking(images: list[np.ndarray], repeats: int) -> None:
    graph = tf.function(lambda batch: shrink(batch, _SIDE), reduce_retracing=True)
    ways: dict[str, Callable[[np.ndarray], Any]] = {
        "training's": lambda image: to_pixels(image, _SIDE),
        "the served model's": lambda image: graph(image[None]).numpy(),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, way in ways.items():
            seconds[name].append(timed(lambda way=way: [way(image) for image in images]))
    own, served = (1e3 * median(values[1:]) / len(images) for values in seconds.values())
    print(f"shrunk to {_SIDE} px: {own:.2f} ms an image, the served graph {served:.2f}, {served / own:.1f} times")


def bare(paths: list[Path]) -> None:
    with ThreadPoolExecutor(LocalStore.readers) as pool:
        list(pool.map(decoded, paths))


def decoded(path: Path) -> str:
    content = path.read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        image.load()
    return hashlib.sha256(content).hexdigest()


def ingest(data: Path, folder: str, name: str) -> None:
    settings = {"data.uri": str(data), "store.champion": f"{folder}/champion"}
    run_step("ingest", load_config("dags/models/solar_cells.yaml", settings), f"{folder}/{name}")


def timed(work: Callable[..., Any], *arguments: Any) -> float:
    begun = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
