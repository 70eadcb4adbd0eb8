"""What each night of a model came to: one small record a night, kept beside the runs and outliving their folders."""

import json
import logging
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from functools import lru_cache
from itertools import takewhile
from typing import Any

from pydantic import ValidationError

from training.config import RunConfig, from_json
from training.data_summary import DataSummary
from training.documents import Document
from training.errors import ConfigError, NightshiftError
from training.provenance import PROVENANCE
from training.run_folder import CONFIG, FAILURE, as_json
from training.store import Entry, NotFound, Store, open_store

log = logging.getLogger(__name__)
# No model's name begins with an underscore.
_RECORDS = "_nights"
# The outcomes of a night whose model passed the gate.
ACCEPTED = ("accepted", "promoted")
_LOSSES = ("fit", "inference_before", "inference", "served")
_DIGITS = 5
_ended: dict[str, "Night"] = {}


class Night(Document):
    """What one run came to; null where it did not get that far.

    Attributes:
        run: name of the run's folder below ``<store.runs>/<name>``.
        began: when its first step began, UTC.
        seconds: that its steps took together.
        outcome: `accepted`: by the gate. `promoted`: and became the champion. `failed`: with `exit_code` and `cause`.
            `skipped`: nothing was new. `under_way`: none of these yet.
        losses: in nats, on the same training images: `fit`, `inference_before` and `inference` (before and after
            recalibration), `served`.
        limit: the largest served loss that the gate accepts, in nats.
        causes: of the difference between fit and validation, in nats.
        roc_auc: on the test images, with the ends of its 95 % interval.
        champion: the number it was promoted to.
        snapshot: date of the data, where the model's data comes in snapshots.
        data: what the images that were gone on with are like; drift may be measured from it.
        made_from: hash of data, settings, weights and code; nights that agree in it are equal.
    """

    run: str
    began: str
    seconds: float = 0.0
    outcome: str = "under_way"
    step: str | None = None
    exit_code: int | None = None
    cause: str | None = None
    message: str | None = None
    losses: dict[str, float | None] = {}
    limit: float | None = None
    causes: dict[str, float | None] = {}
    roc_auc: tuple[float, float, float] | None = None
    images: int | None = None
    champion: int | None = None
    snapshot: date | None = None
    data: DataSummary | None = None
    made_from: str | None = None


def record(config: RunConfig, run_uri: str, **known: Any) -> None:
    """Write down what one of the model's nights has come to, and what is `known` besides; other runs are no nights.

    The record is for people and for later nights to look back on; a night does not fail for want of it.
    """
    if run_uri.rpartition("/")[0] != f"{config.store.runs.rstrip('/')}/{config.name}":
        return  # a try in some other folder
    try:
        night = night_of(run_uri).model_copy(update=known)
        records_of(config.store.runs, config.name).write(f"{night.run}.json", as_json(night.tree()))
    except NightshiftError as error:
        log.warning("the night's record could not be written: %s", error.message)


def records_of(runs: str, name: str) -> Store:
    """Where the records of the model called `name` are, whose runs are below the URI `runs`."""
    return open_store(f"{runs.rstrip('/')}/{_RECORDS}/{name}")


def all_nights(runs: str, name: str) -> list[Night]:
    """Every recorded night of a model, the oldest first; a damaged record is left out and said so."""
    store = records_of(runs, name)
    with ThreadPoolExecutor(store.readers) as readers:
        found = list(readers.map(lambda entry: _read(store.uri(), entry), store.list()))
    return sorted((night for night in found if night is not None), key=lambda night: (night.began, night.run))


def accepted_before(config: RunConfig, snapshot: date) -> Night | None:
    """The accepted night of the newest earlier snapshot; of several the last."""
    nights = all_nights(config.store.runs, config.name)
    earlier = [one for one in nights if one.snapshot and one.snapshot < snapshot and one.outcome in ACCEPTED]
    return max(reversed(earlier), key=lambda one: str(one.snapshot), default=None)


def nights_without_record(runs: str, name: str, folders: Iterable[str], recorded: Collection[str]) -> list[Night]:
    """What those `folders` of runs say that are not among the ones `recorded`: killed early, or older than records."""
    store = open_store(f"{runs.rstrip('/')}/{name}")
    left = [store.uri(folder) for folder in folders if folder not in recorded]
    with ThreadPoolExecutor(store.readers) as readers:
        return [night for night in readers.map(_derived, left) if night is not None]


def night_of(run_uri: str) -> Night:
    """What the documents in a run's folder say.

    Raises:
        StoreError: the folder cannot be reached.
    """
    store = open_store(run_uri)
    validation = _document(store, "validation.json")
    promotion, provenance = _document(store, "promotion.json"), _document(store, PROVENANCE)
    steps, config = provenance.get("steps", {}), _config(store)
    return Night(
        run=run_uri.rpartition("/")[2],
        began=min((step["began"] for step in steps.values()), default=datetime.now(UTC).isoformat(timespec="seconds")),
        seconds=round(sum(step["seconds"] for step in steps.values()), 1),
        images=validation.get("accepted"),
        data=validation.get("summary"),
        champion=promotion.get("number"),
        snapshot=None if config is None else config.data.snapshot,
        made_from=provenance.get("made_from"),
        **_outcome(_document(store, FAILURE), _document(store, "verdict.json"), promotion),
        **_figures(_document(store, "evaluation.json"), config),
    )


def preceding(nights: Sequence[Night], run: str) -> list[Night]:
    """The nights before the one called `run` that came to something, the newest first."""
    begun = next((night.began for night in nights if night.run == run), None)
    told = [one for one in nights if one.run != run and one.outcome not in ("skipped", "under_way")]
    return [one for one in reversed(told) if begun is None or one.began <= begun]


def failed_in_a_row(earlier: Sequence[Night], step: str | None = None, cause: str | None = None) -> list[Night]:
    """Of nights as `preceding` gives them the first ones that failed; with a cause, those that failed just so."""

    def so(night: Night) -> bool:
        return night.outcome == "failed" and (cause is None or (night.step, night.cause) == (step, cause))

    return list(takewhile(so, earlier))


def in_words(night: Night) -> str:
    """What a person wants to know of an accepted night before its model is promoted."""
    losses = {name: "unknown" if loss is None else f"{loss:.3f}" for name, loss in night.losses.items()}
    lines = [f"Loss in training {losses.get('fit')}, as served {losses.get('served')} on the same images"]
    lines += [] if night.limit is None else [f"at most {night.limit:.3f} is accepted"]
    lines += [] if night.roc_auc is None else ["test ROC AUC {:.3f} ({:.3f} to {:.3f})".format(*night.roc_auc)]
    return "; ".join(lines) + f". Run {night.run}."


def _derived(run_uri: str) -> Night | None:
    """A night that has ended stays as it is until it is recorded, so it is read only once."""
    if run_uri in _ended:
        return _ended[run_uri]
    try:
        night = night_of(run_uri)
    except (KeyError, TypeError, ValueError):
        log.warning("%s: damaged documents of a night", run_uri)
        return None
    if night.outcome != "under_way":
        _ended[run_uri] = night
    return night


@lru_cache(maxsize=10_000)
def _read(records: str, entry: Entry) -> Night | None:
    """Kept by the record's version, so that looking again reads only what has changed."""
    try:
        return Night.model_validate_json(open_store(records).read(entry.key))
    except (NotFound, ValidationError):
        log.warning("%s/%s: no record of a night", records, entry.key)
        return None


def _outcome(failure: dict[str, Any], verdict: dict[str, Any], promotion: dict[str, Any]) -> dict[str, Any]:
    if failure:
        told = {name: failure.get(name) for name in ("step", "exit_code", "cause", "message")}
        return {"outcome": "failed", **told}
    if promotion:
        return {"outcome": "promoted", "exit_code": 0, "step": "promote"}
    if verdict.get("accepted"):
        return {"outcome": "accepted", "exit_code": 0, "step": "evaluate"}
    return {}


def _figures(evaluation: dict[str, Any], config: RunConfig | None) -> dict[str, Any]:
    if not evaluation:
        return {}
    from training.verdict import loss_gap_limit  # brings NumPy, which neither --help nor a DAG file waits for

    losses, test = evaluation["losses"], evaluation.get("metrics", {}).get("test", {})
    gap = None if config is None or losses["fit"] is None else loss_gap_limit(config.gate, losses["fit"])
    auc = (test["roc_auc"], *test["roc_auc_interval"]) if "roc_auc" in test else None
    return {
        "losses": {name: _rounded(losses[name]) for name in _LOSSES},
        "limit": None if gap is None else _rounded(losses["fit"] + gap),
        "causes": {name: _rounded(value) for name, value in evaluation["causes"].items()},
        "roc_auc": auc and tuple(map(_rounded, auc)),
    }


def _config(store: Store) -> RunConfig | None:
    """The one the run was begun with; None for a run that never got one, or one of another version."""
    try:
        return from_json(store.read(CONFIG))
    except (NotFound, ConfigError, ValueError):
        return None


def _document(store: Store, key: str) -> dict[str, Any]:
    try:
        return dict(json.loads(store.read(key)))
    except (NotFound, TypeError, ValueError):
        return {}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)
