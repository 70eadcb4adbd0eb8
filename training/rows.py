"""Rows of one array that lie in several, read when they are asked for: more of them than fit into memory."""

import math
import mmap
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

_AT_ONCE = 64


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

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def __getitem__(self, wanted: slice | np.ndarray) -> np.ndarray:
        part, place = self.part[wanted], self.place[wanted]
        found = np.empty((len(part), *self.shape[1:]), self.dtype)
        for number in np.unique(part):
            here = part == number
            found[here] = self.parts[number][place[here]]
            let_go(self.parts[number])
        return found

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self), _AT_ONCE):
            yield from self[start : start + _AT_ONCE]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def take(self, wanted: np.ndarray) -> "Rows":
        """These rows alone, in this order, still unread."""
        return Rows(self.parts, self.part[wanted], self.place[wanted])


def let_go(rows: np.ndarray) -> None:
    """Give back the memory of a mapped file's array; what is asked of it again is read again.

    The system would take it when it is needed elsewhere, but counts it as this process's until then.
    """
    base: Any = rows
    while isinstance(base, np.ndarray):
        base = base.base
    content = base.obj if isinstance(base, memoryview) else base
    if isinstance(content, mmap.mmap):
        content.madvise(mmap.MADV_DONTNEED)


Array = np.ndarray | Rows
