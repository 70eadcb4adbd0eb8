"""What has been told of a run: each message claimed by one process, and ticked off channel by channel."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from nightshift_alert_message import Message
from nightshift_alert_patience import Patience

from training.store import Store, open_store

T = TypeVar("T")
# For each thing that is asked or noted.
_SECONDS = 3.0


class Outbox:
    """A run's `alerts/`, and its `alerts_delivered/`, which says what each channel has delivered.

    Where the run's folder does not answer, one of this machine's takes its place: told once by each of two machines
    is better than not at all.
    """

    def __init__(self, store: Store) -> None:
        self._stores = (store, open_store(_folder_here(store.uri())))

    def claim(self, message: Message) -> bool:
        """Leave the message; False if it was there, so that of many processes one delivers."""
        return self._create(f"alerts/{message.name}.json", json.dumps(message.tree(), indent=2).encode() + b"\n")

    def told(self, step: str, attempt: int | None) -> Message | None:
        """What any process has told of this try of a step."""
        trees = (tree for found in self._ask(lambda store: _trees(store, step), []) for tree in found)
        return next((Message.of(*tree) for tree in trees if tree[1].get("try") == attempt), None)

    def tick(self, message: Message, channel: str) -> None:
        """Note that a channel has delivered a message."""
        self._create(_tick(message, channel), b"")

    def is_ticked(self, message: Message, channel: str) -> bool:
        return any(self._ask(lambda store: store.exists(_tick(message, channel)), False))

    def _create(self, key: str, content: bytes) -> bool:
        answers = self._ask(lambda store: store.create(key, content), None)
        return next((answer for answer in answers if answer is not None), True)

    def _ask(self, question: Callable[[Store], T], otherwise: T | None) -> Iterator[T | None]:
        """The answer of the run's folder, then that of this machine's."""
        for store in self._stores:
            yield Patience(_SECONDS).ask(partial(question, store), otherwise)


def _trees(store: Store, step: str) -> list[tuple[str, dict[str, Any]]]:
    keys = [entry.key for entry in store.list(f"alerts/{step}-")]
    return [(Path(key).stem, json.loads(store.read(key))) for key in keys]


def _tick(message: Message, channel: str) -> str:
    return f"alerts_delivered/{message.name}/{channel}"


def _folder_here(run_uri: str) -> str:
    name = sha256(run_uri.encode()).hexdigest()[:16]
    return str(Path(tempfile.gettempdir()) / f"nightshift-alerts-{os.getuid()}" / name)
