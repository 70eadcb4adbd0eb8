"""The pixels training sees: every image decoded once for ever and shrunk to what the served model makes of it."""

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL

from training import images, preprocessing
from training.computed_once import ComputedOnce
from training.errors import DataRejected, received
from training.preprocessing import to_pixels
from training.progress import followed
from training.rows import Rows
from training.store import Store
from training.threads import in_order

log = logging.getLogger(__name__)


def load_pixels(data: Store, table: pd.DataFrame, size: int, kept: Store, most_bytes: int) -> Rows:
    """Pixels of the manifest's rows, uint8 (n, size, size, 3), of which those that are not in `kept` are decoded.

    Raises:
        DataRejected: an image to be decoded is no longer the one the manifest describes.
    """
    once = ComputedOnce(kept, "pixels", recipe(size), (size, size, 3), "uint8", most_bytes)
    return once.rows(list(table["sha256"]), lambda missing: _decoded(data, table, missing, size))


def recipe(size: int) -> dict[str, Any]:
    """All that decides an image's pixels besides its content."""
    code = b"".join(Path(str(module.__file__)).read_bytes() for module in (images, preprocessing))
    versions = {"pillow": PIL.__version__, "numpy": np.__version__}
    return {"size": size, "code": hashlib.sha256(code).hexdigest(), **versions}


def _decoded(data: Store, table: pd.DataFrame, wanted: list[str], size: int) -> Iterator[np.ndarray]:
    paths = dict(zip(table["sha256"], table["path"], strict=True))
    found = in_order(lambda sha256: to_pixels(_image(data, paths[sha256], sha256), size), wanted, data.readers)
    return followed(found, log, "decode", len(wanted), "images")


def _image(data: Store, path: str, sha256: str) -> np.ndarray:
    content = data.read(path)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataRejected(received(path, "other content", "the image `ingest` saw"), remedy="Start a new run.")
    return images.decode(content)
