"""What the images of one data set look like, for the question which of them are the same picture."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from training.appearance import SIDE
from training.errors import StoreError
from training.images import Undecodable, luminance
from training.near_duplicates import ALIKE, SAME, likenesses, partly_lost
from training.store import Store

_CLOSE = 128


class Looks:
    """Signatures in memory; where these leave a doubt, the images themselves.

    Args:
        table: path and sha256 of the data set's images.
        signatures: sha256 and signature of these, and perhaps of others.
    """

    def __init__(self, data: Store, table: pd.DataFrame, signatures: pd.DataFrame) -> None:
        self.data = data
        self._paths = dict(zip(table["sha256"], table["path"], strict=True))
        signatures = signatures[signatures["sha256"].isin(set(self._paths))]
        self._places = {name: place for place, name in enumerate(signatures["sha256"])}
        self._pictures = np.frombuffer(b"".join(signatures["signature"]), np.uint8).reshape(-1, SIDE, SIDE)

    def present(self, pairs: np.ndarray) -> np.ndarray:
        """Those of the pairs of content hashes, object (m, 2), whose images are both there."""
        there = [one in self._places and other in self._places for one, other in pairs]
        return pairs[np.array(there, bool)]

    def same(self, pairs: np.ndarray) -> np.ndarray:
        """Which pairs of content hashes, object (m, 2), are one picture; bool (m,)."""
        indices = np.array([self._places[name] for name in pairs.ravel()], np.int64).reshape(-1, 2)
        alike = likenesses(self._pictures, indices)
        lost = partly_lost(self._pictures)[indices].any(axis=1)
        same = alike >= SAME
        doubtful = ~same & (alike >= ALIKE) & lost
        with ThreadPoolExecutor(self.data.readers) as readers:
            same[doubtful] = list(readers.map(self._close, *pairs[doubtful].T))
        return same

    def _close(self, one: str, other: str) -> bool:
        try:
            pictures = [luminance(self.data.read(self._paths[name]), _CLOSE) for name in (one, other)]
        except (StoreError, Undecodable):
            return False
        return bool(likenesses(np.stack(pictures), np.array([[0, 1]]))[0] >= SAME)
