"""The pixels training sees: every image decoded once and shrunk by the served model's own code."""

import hashlib
import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from training.errors import DataRejected, received
from training.images import decode
from training.preprocessing import to_pixels
from training.progress import followed
from training.store import Store

log = logging.getLogger(__name__)
_READERS = 8


def load_pixels(data: Store, table: pd.DataFrame, size: int) -> np.ndarray:
    """Pixels of the manifest's rows, uint8 (n, size, size, 3).

    Raises:
        DataRejected: an image is no longer the one the manifest describes.
    """
    pixels = np.empty((len(table), size, size, 3), np.uint8)
    with ThreadPoolExecutor(_READERS) as readers:
        images = readers.map(lambda row: _decoded(data, row.path, row.sha256), table.itertuples())
        for place, image in enumerate(followed(images, log, "decode", len(table), "images")):
            pixels[place] = to_pixels(image, size)
    return pixels


def _decoded(data: Store, path: str, sha256: str) -> np.ndarray:
    content = data.read(path)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataRejected(received(path, "other content", "the image `ingest` saw"), remedy="Start a new run.")
    return decode(content)
