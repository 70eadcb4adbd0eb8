"""What several steps read from a run: the plan, and the pixels of a split."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from training import manifest
from training.images import decode
from training.pixels import load_pixels
from training.run_folder import Run
from training.sampling import SamplingPlan
from training.store import open_store

Labelled = tuple[np.ndarray, np.ndarray]


def read_plan(run: Run) -> SamplingPlan:
    return SamplingPlan.model_validate(run.read_json("sampling.json"))


def training_pixels(run: Run, plan: SamplingPlan, rows: np.ndarray) -> np.ndarray:
    """Pixels of training images, shape (len(rows), size, size, 3); `rows` are indices into ``plan.images``."""
    table = _table(run, "train").set_index("sha256", drop=False).loc[list(plan.images)]
    wanted, places = np.unique(rows, return_inverse=True)
    return load_pixels(open_store(run.config.data.location), table.iloc[wanted], run.config.model.input_size)[places]


def training_labels(plan: SamplingPlan, rows: np.ndarray) -> np.ndarray:
    """Class numbers of training images; `rows` are indices into ``plan.images``."""
    return np.asarray(plan.labels)[rows]


def labelled_split(run: Run, split: str) -> Labelled:
    """Pixels and class numbers of one split, in order of paths."""
    return split_pixels(run, split, np.arange(len(_table(run, split)))), split_labels(run, split)


def split_labels(run: Run, split: str) -> np.ndarray:
    """Class numbers of one split, in order of paths."""
    return _table(run, split)["label"].map(list(run.config.data.classes).index).to_numpy(np.int64)


def split_pixels(run: Run, split: str, rows: np.ndarray) -> np.ndarray:
    """Pixels of some of a split's images, shape (len(rows), size, size, 3); `rows` are indices in order of paths."""
    wanted, places = np.unique(rows, return_inverse=True)
    table = _table(run, split).iloc[wanted]
    return load_pixels(open_store(run.config.data.location), table, run.config.model.input_size)[places]


def raw_images(run: Run, split: str, rows: slice = slice(None)) -> Iterator[np.ndarray]:
    """The split's images as they are served: uint8 (height, width, 3), any size, in order of paths."""
    data = open_store(run.config.data.location)
    return (decode(data.read(path)) for path in _table(run, split)["path"][rows])


def split_files(run: Run, split: str) -> list[tuple[str, str]]:
    """Path below the data set's URI, and SHA-256, of each of the split's images, in order of paths."""
    return list(_table(run, split)[["path", "sha256"]].itertuples(index=False, name=None))


def _table(run: Run, split: str) -> pd.DataFrame:
    return manifest.of_split(manifest.accepted(run.store), split)
