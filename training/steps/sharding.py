"""A step's work in shards: each is left in the run's folder by a process of its own, or done by the step itself."""

import hashlib
import io
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from training.errors import StoreError
from training.run_folder import Run, identity
from training.shards import WHOLE, Part, parts
from training.store import NotFound

log = logging.getLogger(__name__)
# What a shard finds out: arrays by name, which those of the other shards continue.
Found = Mapping[str, np.ndarray]
Work = Callable[[Run, Part], Found]
_SHA256 = 32


def found(run: Run, step: str, inputs: Iterable[str], work: Work) -> Iterator[Found]:
    """What each shard found, in order; one that nobody has done is done now."""
    if run.config.scale.shards == 1:
        yield work(run, WHOLE)
        return
    for part in parts(run.config.scale.shards):
        yield found_by(run, step, inputs, work, part)


def found_by(run: Run, step: str, inputs: Iterable[str], work: Work, part: Part) -> Found:
    """What one shard found; done now and left in the run's folder, unless it has been."""
    key = f"{_folder(step)}{identity(run, step, inputs)[:16]}-{part.number + 1:04d}-of-{part.of:04d}"
    if (left := _read(run, key)) is not None:
        log.info("%s: shard %d of %d was done before", step, part.number + 1, part.of)
        return left
    log.info("%s: shard %d of %d", step, part.number + 1, part.of)
    arrays = work(run, part)
    content = _to_bytes(arrays)
    run.store.write(key, hashlib.sha256(content).digest() + content)
    return arrays


def together(shards: Iterable[Found]) -> dict[str, np.ndarray]:
    """Each array as it would be without shards; a shard that had no rows for one has left it out."""
    every = list(shards)
    names = dict.fromkeys(name for arrays in every for name in arrays)
    return {name: np.concatenate([arrays[name] for arrays in every if name in arrays]) for name in names}


def clear(run: Run, step: str) -> None:
    """Remove what the shards of a finished step have left."""
    for entry in list(run.store.list(_folder(step))):
        run.store.delete(entry.key)


def _folder(step: str) -> str:
    return f"shards/{step}/"


def _read(run: Run, key: str) -> Found | None:
    """None for one that is missing or not what was written."""
    try:
        content = run.store.read(key)
    except StoreError as error:
        if isinstance(error, NotFound) or error.cause == "damaged":
            return None
        raise
    digest, arrays = content[:_SHA256], content[_SHA256:]
    if hashlib.sha256(arrays).digest() != digest:
        log.warning("%s is damaged: done again", run.store.uri(key))
        return None
    with np.load(io.BytesIO(arrays), allow_pickle=False) as loaded:
        return dict(loaded)


def _to_bytes(arrays: Found) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
