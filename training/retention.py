"""Which models are kept: the newest by count, all of the last days, and always those that may be needed at once."""

from datetime import datetime, timedelta

from training import champion
from training.champion import Champion
from training.config import StoreConfig
from training.store import Store


def delete_outdated(store: Store, config: StoreConfig, now: datetime) -> list[str]:
    """Delete the files of outdated models, never an entry; returns their folders.

    Args:
        now: with its time zone.
    """
    folders = outdated(champion.history(store), config.keep_models, config.keep_days, now)
    stored = [item.key for item in store.list("models/")]
    gone = [folder for folder in folders if any(key.startswith(folder) for key in stored)]
    for key in stored:
        if key.startswith(tuple(gone)):
            store.delete(key)
    return gone


def outdated(entries: list[Champion], keep_models: int, keep_days: int, now: datetime) -> list[str]:
    """Folders of the models beyond both the count and the age, by their newest entry.

    The model in service and the one that a rollback brings back stay, whatever their age.
    """
    newest = {entry.folder: entry for entry in entries}
    in_order = sorted(newest.values(), key=lambda entry: -entry.number)
    earliest = now - timedelta(days=keep_days)
    return [
        entry.folder
        for entry in in_order[keep_models:]
        if datetime.fromisoformat(entry.promoted_at) < earliest and entry.folder not in _needed(entries)
    ]


def _needed(entries: list[Champion]) -> set[str]:
    return {entry.folder for entry in (entries[-1], champion.before(entries)) if entry is not None}
