"""Rows of one array that lie in several, read when they are asked for: more of them than fit into memory."""

from collections.abc import Sequence
from typing import Any

import numpy as np


class Rows:
    """As an array of shape (n, …) would be, as far as rows are taken from it by a slice or by their numbers.

    Args:
        parts: arrays whose rows have one shape and type, perhaps memory-mapped.
        part: of each row, which of them it is in, shape (n,).
        place: and which row it is there.
    """

    def __init__(self, parts: Sequence[np.ndarray], part: np.ndarray, place: np.ndarray) -> None:
        self.parts, self.part, self.place = parts, part, place
        self.shape, self.dtype = (len(part), *parts[0].shape[1:]), parts[0].dtype

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, wanted: slice | np.ndarray) -> np.ndarray:
        part, place = self.part[wanted], self.place[wanted]
        found = np.empty((len(part), *self.shape[1:]), self.dtype)
        for number in np.unique(part):
            here = part == number
            found[here] = self.parts[number][place[here]]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def take(self, wanted: np.ndarray) -> "Rows":
        """These rows alone, in this order, still unread."""
        return Rows(self.parts, self.part[wanted], self.place[wanted])
