"""A model's nights as the page shows them: what was recorded, completed by what Airflow knows; pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from nightshift_health_models import AirflowRun

from training.nights import Night
from training.run_folder import folder_name

_DIGITS = 4
_MESSAGE = 200
_LOSSES = {"fit": "fit", "before": "inference_before", "after": "inference", "served": "served"}
# In the order of the telescope; `batch_norm` is its side branch.
CAUSES = ("moving_weights", "stochastic_layers", "small_batches", "batch_norm", "sampling", "generalization")
_UNFINISHED = ("queued", "running")
_SILENT = "It left no word: it was killed, ran out of memory, or lost its machine."
_ELSEWHERE = "Airflow ran it, but nothing of it is kept here."


def known_nights(recorded: Iterable[Night], runs: Iterable[AirflowRun]) -> list[tuple[Night, str | None]]:
    """Each night with Airflow's run id, the oldest first; also those that left no record."""
    ran = {folder_name(run.run_id): run for run in runs}
    nights = {night.run: _completed(night, ran.get(night.run)) for night in recorded}
    nights |= {folder: _unrecorded(folder, run) for folder, run in ran.items() if folder not in nights}
    in_order = sorted(nights.values(), key=lambda night: (night.began, night.run))
    return [(night, ran[night.run].run_id if night.run in ran else None) for night in in_order]


def as_columns(nights: Sequence[tuple[Night, str | None]], kept: Collection[str]) -> dict[str, Any]:
    """One array a field, which is far smaller than one object a night; `kept` are the folders that still exist."""
    alone = [night for night, _ in nights]
    columns: dict[str, Any] = {
        name: [getattr(night, name) for night in alone] for name in ("run", "outcome", "exit_code", "cause", "champion")
    }
    columns |= {name: [_rounded(night.losses.get(key)) for night in alone] for name, key in _LOSSES.items()}
    return columns | {
        "run_id": [run_id for _, run_id in nights],
        "began": [_minute(night.began) for night in alone],
        "kept": [int(night.run in kept) for night in alone],
        "message": [night.message and _shortened(night.message) for night in alone],
        "limit": [_rounded(night.limit) for night in alone],
        "roc_auc": [night.roc_auc and _rounded(night.roc_auc[0]) for night in alone],
        "causes": {name: [_rounded(night.causes.get(name), 3) for night in alone] for name in CAUSES},
    }


def last_champion(nights: Sequence[tuple[Night, str | None]]) -> int | None:
    """The number of the newest champion."""
    return next((night.champion for night, _ in reversed(nights) if night.champion is not None), None)


def _completed(night: Night, run: AirflowRun | None) -> Night:
    if run is None:
        return night
    if run.state in _UNFINISHED:
        return night.model_copy(update={"outcome": run.state})
    if night.outcome == "under_way" and run.state == "failed":
        return night.model_copy(update=_killed(run))
    return night


def _unrecorded(folder: str, run: AirflowRun) -> Night:
    if run.state in _UNFINISHED:
        return Night(run=folder, began=run.began, outcome=run.state)
    if run.state == "failed":
        return Night(run=folder, **_killed(run))
    return Night(run=folder, began=run.began, outcome="unrecorded", message=_ELSEWHERE)


def _killed(run: AirflowRun) -> Mapping[str, Any]:
    return {"began": run.began, "outcome": "failed", "cause": "killed", "message": _SILENT}


def _shortened(text: str) -> str:
    return text if len(text) <= _MESSAGE else text[: _MESSAGE - 1] + "…"


def _minute(moment: str) -> str:
    """Without seconds, in the shortest form that browsers read."""
    try:
        return datetime.fromisoformat(moment).astimezone(UTC).strftime("%Y-%m-%dT%H:%MZ")
    except ValueError:
        return moment


def _rounded(value: float | None, digits: int = _DIGITS) -> float | None:
    return None if value is None else round(value, digits)
