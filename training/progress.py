"""One line every few seconds for work that takes longer."""

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

EVERY_SECONDS = 5.0
T = TypeVar("T")


class Progress:
    """Logs done/total, rate and time left, at most once in `EVERY_SECONDS`; `begun` were done before it started."""

    def __init__(self, log: logging.Logger, what: str, total: int, unit: str, begun: int = 0) -> None:
        self.log, self.what, self.total, self.unit, self.begun = log, what, total, unit, begun
        self.started = self.told = time.monotonic()

    def update(self, done: int, note: str = "") -> None:
        """Say where the work stands, if it is time to."""
        now = time.monotonic()
        if now - self.told >= EVERY_SECONDS and done > self.begun:
            self.told = now
            rate = (done - self.begun) / (now - self.started)
            left = clock((self.total - done) / rate)
            self.log.info("%s %d/%d%s · %.0f %s/s · %s left", self.what, done, self.total, note, rate, self.unit, left)


def clock(seconds: float) -> str:
    """``65`` -> ``1:05``."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def followed(items: Iterable[T], log: logging.Logger, what: str, total: int, unit: str) -> Iterator[T]:
    """The same items, with progress told as they pass."""
    progress = Progress(log, what, total, unit)
    for done, item in enumerate(items, start=1):
        yield item
        progress.update(done)
