"""A run is a folder: which files it holds, when a step is done, and what a failure leaves behind."""

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from training.config import RunConfig, differing_keys, from_json, to_json
from training.documents import Document
from training.errors import ConfigError, NightshiftError, StoreError, received
from training.store import NotFound, Store, open_store

log = logging.getLogger(__name__)
CONFIG = "config.json"
FAILURE = "failure.json"
# What may change between the steps of one run: only the gate, which `evaluate` applies anew.
_CHANGEABLE = "gate."


def run_uri_for(config: RunConfig, run_id: str) -> str:
    """The folder of Airflow's `run_id` below ``store.runs``."""
    return f"{config.store.runs.rstrip('/')}/{config.name}/{folder_name(run_id)}"


def folder_name(run_id: str) -> str:
    """A name that is safe in any store, of letters, digits, ``_`` and ``-``; a `run_id` may hold ':', '+' or '../'."""
    safe = re.sub(r"[^A-Za-z0-9_-]+", "_", run_id)[:100].strip("_")
    if safe != run_id or not safe:
        safe = f"{safe}-{hashlib.sha256(run_id.encode()).hexdigest()[:8]}".lstrip("-")
    return safe


@dataclass(frozen=True)
class Run:
    """One run's folder, opened with the config a step was called with."""

    store: Store
    config: RunConfig

    def read_json(self, key: str) -> dict[str, object]:
        try:
            return dict(json.loads(self.store.read(key)))
        except (ValueError, TypeError):
            raise StoreError(received(self.store.uri(key), "damaged content", "JSON"), cause="damaged") from None

    def write_json(self, key: str, tree: object) -> None:
        self.store.write(key, as_json(tree))

    def digest(self, key: str) -> str:
        """SHA-256 of a file's content."""
        return hashlib.sha256(self.store.read(key)).hexdigest()


class Marker(Document):
    """What a finished step leaves: the SHA-256 of everything it depended on, and of what it wrote."""

    inputs: dict[str, str]
    outputs: dict[str, str]


def open_run(config: RunConfig, run_uri: str, *, first: bool = False) -> Run:
    """Open a run's folder; the `first` step writes the config, later ones must come with the same.

    Raises:
        ConfigError: there is no such run, or its config differs in more than the gate.
    """
    run = Run(open_store(run_uri), config)
    if run.store.exists(CONFIG):
        _refuse_other_config(run)
    elif first:
        run.store.write(CONFIG, to_json(config))
    else:
        raise ConfigError(received("--run", run_uri, "a run begun by `ingest`"))
    return run


def config_of(run_uri: str, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """The config that the run at `run_uri` was begun with, with dotted `overrides` laid over it.

    Raises:
        ConfigError: there is no such run, or its config is damaged or of another version.
    """
    try:
        return from_json(open_store(run_uri).read(CONFIG), overrides)
    except (NotFound, ValueError):
        raise ConfigError(received("--like", run_uri, f"{CONFIG!r} of an earlier run")) from None


def is_done(run: Run, step: str, inputs: Iterable[str], extra: str = "") -> bool:
    """Whether the step's marker matches the hashes of its inputs, and its outputs are there unharmed."""
    if not was_done(run, step):
        return False
    try:
        require_unharmed(run, step)
    except StoreError as error:
        if error.cause != "damaged":
            raise
        log.warning("%s: done again, since %s", step, error)
        return False
    return _read_marker(run, step).inputs == _inputs(run, step, inputs, extra)


def mark_done(run: Run, step: str, inputs: Iterable[str], outputs: Iterable[str], extra: str = "") -> None:
    """Write the step's marker: the last thing a step does."""
    written = {name: run.digest(name) for name in outputs}
    run.write_json(_marker(step), Marker(inputs=_inputs(run, step, inputs, extra), outputs=written).tree())


def was_done(run: Run, step: str) -> bool:
    """Whether the step has ended well since any step before it last did its work."""
    return run.store.exists(_marker(step))


def require_unharmed(run: Run, step: str) -> None:
    """Refuse to go on from what a finished step left unless all of it is as it was.

    Raises:
        StoreError: with cause ``damaged``, when a file or the step's marker is missing or not what it was.
    """
    for name, sha256 in _read_marker(run, step).outputs.items():
        if _digest_if_whole(run, name) != sha256:
            raise _damaged(run, name, step)


def forget(run: Run, steps: Iterable[str]) -> None:
    """Remove the markers of steps whose inputs are about to change."""
    for step in steps:
        run.store.delete(_marker(step))


def write_failure(run_uri: str, step: str, error: NightshiftError) -> None:
    """Leave `failure.json`, which the runner, the alerts and the pages read."""
    failure = {
        "step": step,
        "exit_code": error.exit_code,
        "code": error.code,
        "message": error.message,
        "cause": error.cause,
        "remedy": error.remedy,
    }
    open_store(run_uri).write(FAILURE, as_json(failure))


def as_json(tree: object) -> bytes:
    """Strict JSON (no NaN), stable to the byte."""
    return json.dumps(tree, indent=2, sort_keys=True, allow_nan=False).encode() + b"\n"


def identity(run: Run, step: str, inputs: Iterable[str]) -> str:
    """A hash of everything that a step's outputs depend on."""
    return hashlib.sha256(as_json(_inputs(run, step, inputs, ""))).hexdigest()


def _marker(step: str) -> str:
    return f"done/{step}.json"


def _read_marker(run: Run, step: str) -> Marker:
    try:
        return Marker.model_validate_json(run.store.read(_marker(step)))
    except ValueError:
        raise _damaged(run, _marker(step), step) from None


def _digest_if_whole(run: Run, name: str) -> str:
    """Empty for a file that is missing, or that the store knows to be damaged."""
    try:
        return run.digest(name)
    except StoreError as error:
        if isinstance(error, NotFound) or error.cause == "damaged":
            return ""
        raise


def _damaged(run: Run, name: str, step: str) -> StoreError:
    message = received(run.store.uri(name), "damaged or missing content", f"what `{step}` left there")
    remedy = f"Do `{step}` and the steps after it again: it finds the damage and does its work anew."
    return StoreError(message, cause="damaged", remedy=remedy)


def _inputs(run: Run, step: str, inputs: Iterable[str], extra: str) -> dict[str, str]:
    config = run.config.model_dump(mode="json", exclude=set() if step == "evaluate" else {"gate"})
    hashes = {name: _digest_if_whole(run, name) for name in inputs}
    return {"config": hashlib.sha256(as_json(config)).hexdigest(), "extra": extra, **hashes}


def _refuse_other_config(run: Run) -> None:
    begun = from_json(run.store.read(CONFIG))
    keys = [key for key in differing_keys(begun, run.config) if not key.startswith(_CHANGEABLE)]
    if keys:
        raise ConfigError(
            f"config: received other values than the run began with for {', '.join(keys)}, expected the same",
            remedy="Start a new run, or call the step with the run's own config.json values.",
        )
