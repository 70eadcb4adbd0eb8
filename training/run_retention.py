"""Which runs' folders are kept: the newest by count, all of the last days, the champion's, and those under way."""

import logging
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from training import champion
from training.config import RunConfig
from training.nights import Night, all_nights, nights_without_record, record
from training.progress import followed
from training.store import Store, open_store

log = logging.getLogger(__name__)
# Longer than a night waits for an approval or for a machine; whatever has not ended by then was killed.
UNDER_WAY = timedelta(days=7)
_MARKERS = "done/"


def outdated_runs(config: RunConfig, now: datetime) -> list[str]:
    """Names of the folders below ``<store.runs>/<name>`` that may go, the oldest first.

    Args:
        now: with its time zone.
    """
    store = _runs(config)
    folders = set(store.folders())
    recorded = all_nights(config.store.runs, config.name)
    others = nights_without_record(config.store.runs, config.name, folders, {night.run for night in recorded})
    nights = [night for night in (*recorded, *others) if night.run in folders]
    return outdated(nights, _needed(config), config.store.keep_runs, config.store.keep_run_days, now)


def outdated(
    nights: Sequence[Night], needed: Collection[str], keep_runs: int, keep_days: int, now: datetime
) -> list[str]:
    """Of nights those beyond both the count and the age, the oldest first; not the `needed`, nor one under way."""
    in_order = sorted(nights, key=lambda night: (_began(night), night.run), reverse=True)
    earliest = now - timedelta(days=keep_days)
    return [
        night.run
        for night in reversed(in_order[keep_runs:])
        if _began(night) < earliest and night.run not in needed and not _under_way(night, now)
    ]


def delete_run(config: RunConfig, name: str) -> int:
    """Delete one run's folder; its record among the nights stays. Returns the bytes that were freed.

    First go the marks of what is done, so that half a folder is never taken for a whole one.
    """
    store = open_store(_runs(config).uri(name))
    record(config, store.uri())
    entries = sorted(store.list(), key=lambda entry: not entry.key.startswith(_MARKERS))
    for entry in followed(entries, log, f"retain {name}", len(entries), "files"):
        store.delete(entry.key)
    store.remove_empty_folders()
    return sum(entry.size for entry in entries)


def _needed(config: RunConfig) -> set[str]:
    """The runs of the model in service and of the one that a rollback brings back, by name: stores may be moved."""
    entries = champion.history(open_store(config.store.champion))
    served = (*entries[-1:], champion.before(entries))
    return {entry.run.rstrip("/").rpartition("/")[2] for entry in served if entry is not None}


def _runs(config: RunConfig) -> Store:
    return open_store(f"{config.store.runs.rstrip('/')}/{config.name}")


def _began(night: Night) -> datetime:
    return datetime.fromisoformat(night.began)


def _under_way(night: Night, now: datetime) -> bool:
    return night.outcome == "under_way" and _began(night) > now - UNDER_WAY
