"""The champion: the newest entry of a numbered history to which entries are only ever added."""

import hashlib
import json
from typing import Any

from training.data_summary import DataSummary
from training.documents import Document
from training.errors import ConfigError, StoreError, received
from training.run_folder import as_json
from training.store import Store

_HISTORY = "history/"


class Champion(Document):
    """One entry of the history.

    Attributes:
        number: 1 for the first entry; the highest is in service.
        model: key of the served model's `.keras` file, in the same store.
        sha256: of that file.
        run: URI of the run it comes from.
        evaluation_sha256: of that run's `evaluation.json`.
        threshold: probability at or above which an image counts as positive; null where there are more than two
            classes, of which the most probable counts.
        test_roc_auc: of more than two classes, the mean of each against the rest.
        data: of the images it was trained, validated and tested on; drift is measured from it.
        rolled_back_to: the earlier number this entry brings back, if it does.
    """

    number: int
    model: str
    sha256: str
    run: str
    evaluation_sha256: str
    classes: tuple[str, ...]
    threshold: float | None
    test_loss: float
    test_roc_auc: float
    promoted_at: str
    data: DataSummary | None = None
    rolled_back_to: int | None = None


def history(store: Store) -> list[Champion]:
    """All entries, the oldest first.

    Raises:
        StoreError: an entry cannot be read.
    """
    entries = [_entry(store, item.key) for item in store.list(_HISTORY)]
    return sorted(entries, key=lambda entry: entry.number)


def current(store: Store) -> Champion | None:
    """The champion in service; None before the first promotion."""
    entries = history(store)
    return entries[-1] if entries else None


def read_model(store: Store, entry: Champion) -> bytes:
    """The champion's `.keras` file, its checksum verified."""
    content = store.read(entry.model)
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise StoreError(received(store.uri(entry.model), "damaged content", f"SHA-256 {entry.sha256}"))
    return content


def append(store: Store, entry: Champion) -> bool:
    """Add the entry if nobody else has taken its number; False when somebody has."""
    return store.create(f"{_HISTORY}{entry.number:08d}.json", as_json(entry.tree()))


def roll_back(store: Store, now: str) -> Champion:
    """Append the entry that was in service before the present one."""
    entries = history(store)
    in_service = [entry for entry in entries if entry.rolled_back_to is None]
    if len(entries) < 2:
        raise ConfigError(received("--rollback", f"a history of {len(entries)}", "at least two entries"))
    serving = entries[-1].rolled_back_to or entries[-1].number
    earlier = [entry for entry in in_service if entry.number < serving]
    if not earlier:
        raise ConfigError(received("--rollback", f"entry {serving} in service", "an earlier entry to go back to"))
    back = earlier[-1].model_copy(
        update={"number": entries[-1].number + 1, "rolled_back_to": earlier[-1].number, "promoted_at": now}
    )
    if not append(store, back):
        raise StoreError("champion: another promotion came first", remedy="Look at the history and try again.")
    return back


def _entry(store: Store, key: str) -> Champion:
    try:
        tree: dict[str, Any] = json.loads(store.read(key))
        return Champion.model_validate(tree)
    except ValueError:  # pydantic's and json's errors are both ValueErrors
        raise StoreError(received(store.uri(key), "an unreadable entry", "a champion's JSON")) from None
