"""Checkpoints in a run's folder: numbered, each named by its content's hash, the newest that is whole counts."""

import hashlib
import io
import json
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.store import NotFound, Store

log = logging.getLogger(__name__)
FOLDER = "checkpoint/state/"
# The one before the newest is there in case the newest is damaged.
_KEPT = 2
_FACTS = "facts"


@dataclass(frozen=True)
class Checkpoint:
    """Where some work stands: facts that JSON can hold, and arrays by name."""

    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]


class Checkpoints:
    """Those of one piece of work.

    Args:
        of: hash of everything the work depends on; what was saved under another one is not seen.
    """

    def __init__(self, store: Store, of: str) -> None:
        self.store, self.prefix = store, f"{FOLDER}{of[:16]}/"

    def newest(self) -> Checkpoint | None:
        """The newest whose content is what was written; None if there is none."""
        found = (self._read(key) for key in reversed(self._keys()))
        return next((checkpoint for checkpoint in found if checkpoint is not None), None)

    def save(self, checkpoint: Checkpoint) -> None:
        """Add one, whole or not at all, and remove all but the last few."""
        content, keys = packed(checkpoint), self._keys()
        number = 1 + (int(keys[-1].removeprefix(self.prefix)[:8]) if keys else 0)
        self.store.write(f"{self.prefix}{number:08d}-{hashlib.sha256(content).hexdigest()}.npz", content)
        for key in keys[: 1 - _KEPT]:
            self.store.delete(key)

    def clear(self) -> None:
        """Remove all that any work has left in this run."""
        for entry in list(self.store.list(FOLDER)):
            self.store.delete(entry.key)

    def _keys(self) -> list[str]:
        return [entry.key for entry in self.store.list(self.prefix)]

    def _read(self, key: str) -> Checkpoint | None:
        try:
            content = self.store.read(key)
        except NotFound:
            return None
        if hashlib.sha256(content).hexdigest() not in key:
            log.warning("%s is damaged (its SHA-256 is not the one in its name); an older one is used", key)
            return None
        return unpacked(content)


def packed(checkpoint: Checkpoint) -> bytes:
    """One file of NumPy's own format, nothing pickled."""
    facts = np.frombuffer(json.dumps(checkpoint.facts).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{_FACTS: facts}, **checkpoint.arrays)
    return buffer.getvalue()


def unpacked(content: bytes) -> Checkpoint:
    """What `packed` has packed."""
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return Checkpoint(json.loads(arrays.pop(_FACTS).tobytes()), arrays)
