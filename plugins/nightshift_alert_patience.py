"""Waiting no longer than Airflow does: it ends a task's callbacks after 20 seconds, a DAG's with its file's 50."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from training.errors import NightshiftError
from training.store import NotFound

T = TypeVar("T")
log = logging.getLogger("nightshift.alerts")


def begun(work: Callable[[], T]) -> "Future[T]":
    """Begin `work` beside this thread; unlike an executor's threads it does not keep the process from ending."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 — it is for whoever asks for the result
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


class Patience:
    """So many seconds for everything that is asked of a store, which may be the very thing that does not answer.

    Attributes:
        in_vain: whether something could not be learned.
    """

    def __init__(self, seconds: float) -> None:
        self.in_vain = False
        self._end = time.monotonic() + seconds

    def ask(self, question: Callable[[], T], otherwise: T) -> T:
        """The answer; `otherwise` if what is asked for is not there, cannot be had, or comes too late."""
        try:
            return self._in_time(question)
        except NotFound:
            return otherwise
        except (NightshiftError, ValueError, KeyError) as error:
            log.warning("the alert goes without what cannot be read: %s", error)
        except TimeoutError:
            log.warning("the alert goes without what the store does not answer in time")
        self.in_vain = True
        return otherwise

    def _in_time(self, question: Callable[[], T]) -> T:
        left = self._end - time.monotonic()
        if left <= 0:  # not even begun, since it may be a writing that would then come about unnoticed
            raise TimeoutError
        return begun(question).result(left)
