"""Work cut into parts that can be done apart, at the boundaries of its batches; pure."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, TypeVar


class Rows(Protocol):
    """A list, an array, a table: what has a length and gives a part of itself."""

    def __len__(self) -> int: ...
    def __getitem__(self, key: Any, /) -> Any: ...


Items = TypeVar("Items", bound=Rows)


@dataclass(frozen=True)
class Part:
    """One of `of` parts, counted from 0."""

    number: int
    of: int

    def cut(self, items: Items) -> Items:
        """Its items, in order; the parts differ by one at most, and some are empty where there are few."""
        start, stop = (len(items) * edge // self.of for edge in (self.number, self.number + 1))
        own: Items = items[start:stop]
        return own

    def batches(self, rows: int, batch_size: int) -> list[range]:
        """Its batches of so many rows."""
        return self.cut(spans(rows, batch_size))

    def rows(self, rows: int, batch_size: int) -> slice:
        """The rows of its batches, which lie side by side."""
        own = self.batches(rows, batch_size)
        return slice(own[0].start, own[-1].stop) if own else slice(0, 0)


WHOLE = Part(0, 1)


def parts(count: int) -> list[Part]:
    return [Part(number, count) for number in range(count)]


def spans(rows: int, batch_size: int) -> list[range]:
    """Consecutive rows, `batch_size` at a time.

    A last one that would be alone joins the batch before: one image has no variance to be normalised by.
    """
    edges = [*range(0, rows, batch_size), rows]
    if batch_size > 1 and rows % batch_size == 1 and rows > 1:
        del edges[-2]
    return [range(start, stop) for start, stop in pairwise(edges)]
