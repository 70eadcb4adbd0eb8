"""What holds of a run's folder at any moment, and when two runs are equal."""

import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from training.checkpoints import unpacked
from training.network import from_bytes
from training.store import Store

ARRAYS = ("checkpoint/model.keras", "recalibrated/model.keras")
BYTES = (
    *("manifest.parquet", "quarantine.parquet", "validation.json", "sampling.json", "history.csv"),
    *("checkpoint/steps.json", "batch_norm.json", "evaluation.json", "verdict.json"),
)


def assert_equal(one: Store, other: Store) -> None:
    """Every array, the history, manifest, plan, evaluation and verdict of two runs are the same to the bit."""
    for name in BYTES:
        assert one.read(name) == other.read(name), name
    for name in ARRAYS:
        assert_same_weights(one.read(name), other.read(name))


def assert_same_weights(one: bytes, other: bytes) -> None:
    """Two `.keras` files, which hold the date they were saved at, are equal in every array."""
    weights = (from_bytes(content).get_weights() for content in (one, other))
    assert all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))


def rewrite(run: Path, name: str, content: bytes) -> None:
    """Put other content into a run as if the step that wrote the file had written that."""
    (run / name).write_bytes(content)
    for path in (run / "done").iterdir():
        marker = json.loads(path.read_bytes())
        if name in marker["outputs"]:
            marker["outputs"][name] = hashlib.sha256(content).hexdigest()
            path.write_text(json.dumps(marker))


def assert_whole(folder: Path) -> None:
    """Nothing that is there under its own name is cut off."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.startswith(".unfinished-"):
            assert _whole(path), path


def _whole(path: Path) -> bool:
    content = path.read_bytes()
    match path.suffix:
        case ".json":
            return bool(json.loads(content))
        case ".parquet":
            return pd.read_parquet(io.BytesIO(content)) is not None
        case ".keras":
            return zipfile.ZipFile(io.BytesIO(content)).testzip() is None
        case ".npz":
            return bool(unpacked(content).arrays)
        case ".html":
            return b"</html>" in content[-20:]
    return bool(content)
