"""Work of several threads, in order, none of them far ahead: what waits to be used takes memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

# Batches that a network computes side by side: one alone leaves a part of two processors with nothing to do.
AT_ONCE = 2
Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """`function` of each item."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def first_here(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """`in_order`, but the first in the caller's thread, where what it is traced with is known."""
    remaining = iter(items)
    yield from map(function, islice(remaining, 1))
    yield from in_order(function, remaining, threads)
