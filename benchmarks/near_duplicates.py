"""How many planted near-duplicates are found among look-alikes, and how many different images are taken for one.

    python benchmarks/near_duplicates.py [--images 2624] [--hashes 1000000]

Each image of the sample is copied in each way; each kind of copy arrives as a night of new images after the originals.
Then the same for look-alikes of another sort: overlapping pieces of scikit-learn's two sample photographs.
"""

import argparse
import io
import resource
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.datasets import load_sample_images

from training.appearance import SIDE, appearance
from training.images import describe
from training.looks import Looks
from training.near_duplicates import RADIUS, SAME, candidates, hash_numbers
from training.sample import write_sample

Change = Callable[[Image.Image], Image.Image]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2624, help="solar cells, from the whole sample's first on")
    parser.add_argument("--hashes", type=int, default=1_000_000, help="random hashes whose search is timed")
    options = parser.parse_args()
    print(f"radius {RADIUS} bits, likeness at least {SAME}", flush=True)
    time_search(options.hashes)
    measure("solar cells", cells(options.images))
    measure("pieces of photographs", pieces())


def time_search(count: int) -> None:
    hashes = np.random.default_rng(0).integers(2**64, size=count, dtype=np.uint64)
    for new in (count, count // 1000, 0):
        start = time.process_time()
        found = len(candidates(hashes, count - new))
        seconds = time.process_time() - start
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{count} random hashes, {new} new: {found} pairs in {seconds:.6f} s, peak {memory:.2f} GiB", flush=True)


def cells(count: int) -> list[Image.Image]:
    with TemporaryDirectory() as folder:
        write_sample(Path(folder))
        return [Image.open(path).convert("L") for path in sorted(Path(folder).glob("images/*.png"))[:count]]


def pieces(side: int = 160, stride: int = 53) -> list[Image.Image]:
    photographs = [Image.fromarray(pixels).convert("L") for pixels in load_sample_images().images]
    return [
        photograph.crop((left, top, left + side, top + side))
        for photograph in photographs
        for top in range(0, photograph.height - side, stride)
        for left in range(0, photograph.width - side, stride)
    ]


def measure(name: str, images: list[Image.Image]) -> None:
    """Print the confirmed pairs among the originals, then what is found of each kind of copy."""
    originals = Collection(images)
    print(f"\n{len(images)} {name}")
    report_originals(originals)
    print(f"{'copies':34}{'hash finds':>11}{'confirmed':>11}{'in wrong pair':>15}")
    rows = [report_copies(kind, images, change) for kind, change in KINDS.items()]
    print(line("all", *(np.concatenate(column) for column in zip(*rows, strict=True))), flush=True)


class Collection:
    """Images in memory, looked at as `ingest` looks at files."""

    def __init__(self, images: list[Image.Image]) -> None:
        self.files = {str(place): _encoded(image, "BMP").getvalue() for place, image in enumerate(images)}
        found = [describe(content)["signature"] for content in self.files.values()]
        signatures = np.frombuffer(b"".join(found), np.uint8).reshape(-1, SIDE, SIDE)
        hashes = appearance(signatures)["perceptual_hash"]
        self.hashes = hash_numbers(hashes)
        self.names = np.array(list(self.files), object)
        table = pd.DataFrame({"path": self.names, "sha256": self.names, "signature": found, "perceptual_hash": hashes})
        self._looks = Looks(self, table, lambda rows: rows)

    def read(self, key: str, at_most: int | None = None) -> bytes:
        return self.files[key]

    def same(self, pairs: np.ndarray) -> np.ndarray:
        return self._looks.same(self.names[pairs])


def report_originals(originals: Collection) -> None:
    pairs = candidates(originals.hashes, 0)
    confirmed = originals.same(pairs)
    share = len(np.unique(pairs[confirmed])) / len(originals.names)
    print(
        f"originals: {len(pairs)} pairs proposed, {confirmed.sum()} confirmed, {share:.2%} of the images in one, "
        f"largest cluster {largest_cluster(pairs[confirmed], len(originals.names))}"
    )


def report_copies(kind: str, images: list[Image.Image], change: Change) -> tuple[np.ndarray, ...]:
    """For each copy: did the hash propose its original, was it confirmed, was another image."""
    count = len(images)
    both = Collection([*images, *map(change, images)])
    pairs = candidates(both.hashes, count)
    pairs = pairs[pairs[:, 0] < count]
    same, own = both.same(pairs), pairs[:, 1] - count == pairs[:, 0]
    near, found, wrong = (
        np.isin(np.arange(count), pairs[chosen, 1] - count) for chosen in (own, own & same, ~own & same)
    )
    print(line(kind, near, found, wrong), flush=True)
    return near, found, wrong


def line(kind: str, near: np.ndarray, found: np.ndarray, wrong: np.ndarray) -> str:
    return f"{kind:34}{near.mean():11.2%}{found.mean():11.2%}{wrong.mean():15.2%}"


def largest_cluster(pairs: np.ndarray, images: int) -> int:
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(images, images))
    return int(np.bincount(connected_components(graph, directed=False)[1]).max())


def resized(scale: float) -> Change:
    return lambda image: image.resize(
        (round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC
    )


def encoded(quality: int) -> Change:
    return lambda image: Image.open(_encoded(image, "JPEG", quality=quality)).convert("L")


def _encoded(image: Image.Image, kind: str, **options: int) -> io.BytesIO:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content


def brightened(factor: float) -> Change:
    return lambda image: image.point([min(255, round(gray * factor)) for gray in range(256)])


def in_turn(*changes: Change) -> Change:
    def change(image: Image.Image) -> Image.Image:
        for one in changes:
            image = one(image)
        return image

    return change


KINDS: dict[str, Change] = {
    "resized to 0.5": resized(0.5),
    "resized to 0.75": resized(0.75),
    "resized to 1.5": resized(1.5),
    "JPEG 50": encoded(50),
    "JPEG 75": encoded(75),
    "JPEG 95": encoded(95),
    "brightness x 0.7": brightened(0.7),
    "brightness x 1.15": brightened(1.15),
    "brightness x 1.3": brightened(1.3),
    "0.5, brightness x 0.7, JPEG 50": in_turn(resized(0.5), brightened(0.7), encoded(50)),
    "0.5, brightness x 1.3, JPEG 50": in_turn(resized(0.5), brightened(1.3), encoded(50)),
    "0.75, brightness x 1.3, JPEG 75": in_turn(resized(0.75), brightened(1.3), encoded(75)),
    "1.5, brightness x 0.7, JPEG 75": in_turn(resized(1.5), brightened(0.7), encoded(75)),
}


if __name__ == "__main__":
    main()
