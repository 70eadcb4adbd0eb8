"""What the images of one data set look like, for the question which of them are the same picture."""

from collections.abc import Callable
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
    """Signatures of the images that are asked about; where these leave a doubt, the images themselves.

    Args:
        table: path, sha256, perceptual_hash and whatever else `signatures` needs, of the data set's images.
        signatures: from some of these rows, sha256 and signature of most.
    """

    def __init__(self, data: Store, table: pd.DataFrame, signatures: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
        self.data, self.signatures = data, signatures
        self.table = table[table["perceptual_hash"].notna()].drop_duplicates("sha256")

    def present(self, pairs: np.ndarray) -> np.ndarray:
        """Those of the pairs of content hashes, object (m, 2), whose images are both there."""
        there = set(self._rows(pairs)["sha256"])
        return pairs[np.array([one in there and other in there for one, other in pairs], bool)]

    def same(self, pairs: np.ndarray) -> np.ndarray:
        """Which pairs of content hashes, object (m, 2), are one picture; bool (m,)."""
        rows = self._rows(pairs)
        places = {name: place for place, name in enumerate(rows["sha256"])}
        pictures = self._pictures(rows)
        indices = np.array([places[name] for name in pairs.ravel()], np.int64).reshape(-1, 2)
        alike = likenesses(pictures, indices)
        lost = partly_lost(pictures)[indices].any(axis=1)
        same = alike >= SAME
        doubtful = ~same & (alike >= ALIKE) & lost
        paths = rows["path"].to_numpy(object)[indices]
        with ThreadPoolExecutor(self.data.readers) as readers:
            same[doubtful] = list(readers.map(self._close, *paths[doubtful].T))
        return same

    def _rows(self, pairs: np.ndarray) -> pd.DataFrame:
        return self.table[self.table["sha256"].isin(pairs.ravel().tolist())]

    def _pictures(self, rows: pd.DataFrame) -> np.ndarray:
        """Signatures, uint8 (n, SIDE, SIDE); one that was lost is made anew."""
        found = self.signatures(rows).set_index("sha256")["signature"].to_dict()
        every = [
            found.get(name) or luminance(self.data.read(path), SIDE).tobytes()
            for name, path in zip(rows["sha256"], rows["path"], strict=True)
        ]
        return np.frombuffer(b"".join(every), np.uint8).reshape(-1, SIDE, SIDE)

    def _close(self, one: str, other: str) -> bool:
        try:
            pictures = [luminance(self.data.read(path), _CLOSE) for path in (one, other)]
        except (StoreError, Undecodable):
            return False
        return bool(likenesses(np.stack(pictures), np.array([[0, 1]]))[0] >= SAME)
