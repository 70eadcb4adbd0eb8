"""What several steps read from a run: the plan, and the pixels of a split."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from training import manifest
from training.images import decode
from training.pixels import load_pixels
from training.rows import Rows
from training.run_folder import Run
from training.sampling import SamplingPlan
from training.store import Store, open_store

Labelled = tuple[Rows, np.ndarray]


def read_plan(run: Run) -> SamplingPlan:
    return SamplingPlan.model_validate(run.read_json("sampling.json"))


def training_images(run: Run, plan: SamplingPlan) -> pd.DataFrame:
    """The manifest's rows of the training images, in the order of ``plan.images``."""
    return split_images(run, "train").set_index("sha256", drop=False).loc[list(plan.images)]


def split_images(run: Run, split: str) -> pd.DataFrame:
    """The manifest's rows of one split, in order of paths."""
    return manifest.of_split(manifest.accepted(run.store), split)


def pixels(run: Run, table: pd.DataFrame) -> Rows:
    """Pixels of the manifest's rows, uint8 (n, size, size, 3)."""
    config = run.config
    kept, most_bytes = computed(run)
    return load_pixels(open_store(config.data.location), table, config.model.input_size, kept, most_bytes)


def computed(run: Run) -> tuple[Store, int]:
    """Where what is computed once is kept, and how many bytes of it."""
    return open_store(run.config.store.data), int(run.config.store.keep_computed_gib * 2**30)


def training_pixels(run: Run, plan: SamplingPlan, rows: np.ndarray) -> Rows:
    """Pixels of training images, shape (len(rows), size, size, 3); `rows` are indices into ``plan.images``."""
    return pixels(run, training_images(run, plan).iloc[rows])


def training_labels(plan: SamplingPlan, rows: np.ndarray) -> np.ndarray:
    """Class numbers of training images; `rows` are indices into ``plan.images``."""
    return np.asarray(plan.labels)[rows]


def labelled_split(run: Run, split: str) -> Labelled:
    """Pixels and class numbers of one split, in order of paths."""
    return pixels(run, split_images(run, split)), split_labels(run, split)


def split_labels(run: Run, split: str) -> np.ndarray:
    """Class numbers of one split, in order of paths."""
    return split_images(run, split)["label"].map(list(run.config.data.classes).index).to_numpy(np.int64)


def split_pixels(run: Run, split: str, rows: np.ndarray) -> Rows:
    """Pixels of some of a split's images, shape (len(rows), size, size, 3); `rows` are indices in order of paths."""
    return pixels(run, split_images(run, split).iloc[rows])


def raw_images(run: Run, split: str, rows: slice = slice(None)) -> Iterator[np.ndarray]:
    """The split's images as they are served: uint8 (height, width, 3), any size, in order of paths."""
    data = open_store(run.config.data.location)
    return (decode(data.read(path)) for path in split_images(run, split)["path"][rows])


def split_files(run: Run, split: str) -> list[tuple[str, str]]:
    """Path below the data set's URI, and SHA-256, of each of the split's images, in order of paths."""
    return list(split_images(run, split)[["path", "sha256"]].itertuples(index=False, name=None))
