"""The way from a URL to a file: only below one model's runs, only by names that cannot lead elsewhere."""

import logging
import re
from dataclasses import dataclass

from fastapi import HTTPException
from nightshift_health_models import AirflowRun, Model
from nightshift_health_nights import known_nights

from training.errors import NightshiftError
from training.nights import Night, all_nights, nights_without_record
from training.store import NotFound, TooLarge, open_store

log = logging.getLogger("nightshift.health")
_RUN = re.compile(r"[A-Za-z0-9_-]{1,120}")
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+=@ -]{0,199}")
_MOST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Nights:
    """A model's nights with their Airflow run ids, the oldest first, and the folders that still exist."""

    known: list[tuple[Night, str | None]]
    kept: frozenset[str]


def nights_of(model: Model, runs: list[AirflowRun]) -> Nights:
    """All nights of a model; raises HTTPException 503 when its store cannot be reached."""
    try:
        recorded = [night for night in all_nights(model.runs, model.name) if is_run(night.run)]
        folders = frozenset(filter(is_run, open_store(f"{model.runs.rstrip('/')}/{model.name}").folders()))
        rest = nights_without_record(model.runs, model.name, folders, {night.run for night in recorded})
    except NightshiftError as error:
        raise _unreachable(error) from error
    return Nights(known_nights([*recorded, *rest], runs), folders)


def read(model: Model, run: str, path: str) -> bytes:
    """A file of a run of this model; raises HTTPException 404 for whatever is not that."""
    if not is_run(run) or not all(map(_SEGMENT.fullmatch, path.split("/"))):
        raise HTTPException(404)
    try:
        # From the folder of all runs, so that a run that is a link to elsewhere leads outside of it.
        return open_store(f"{model.runs.rstrip('/')}/{model.name}").read(f"{run}/{path}", at_most=_MOST_BYTES)
    except (NotFound, TooLarge):
        raise HTTPException(404) from None
    except NightshiftError as error:
        if error.cause == "outside":
            raise HTTPException(404) from None
        raise _unreachable(error) from error


def is_run(name: str) -> bool:
    """Whether a run's folder may be called that."""
    return _RUN.fullmatch(name) is not None


def _unreachable(error: NightshiftError) -> HTTPException:
    """What exactly is wrong is for the server's log: it may name places."""
    log.warning("the runs cannot be read: %s", error)
    return HTTPException(503, "The model's runs cannot be read at the moment. The API server's log says why.")
