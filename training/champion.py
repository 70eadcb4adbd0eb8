"""The champion: the newest entry of a numbered history to which entries are only ever added.

An entry is created only if its number is free, so a change of champion is a compare-and-swap. The files it names are
stored before it, under a name made from their content, so nothing is ever overwritten.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from training.data_summary import DataSummary
from training.documents import Document
from training.errors import ConfigError, StoreError, Superseded, received
from training.run_folder import as_json
from training.store import Store

_HISTORY = "history/"
_CHECKSUM = "checksum"
_MODEL = "model.keras"
_RESTORE = "Bring the file back from a backup; until then no model can be compared with it, so none is promoted."


class Champion(Document):
    """One entry of the history; a field with a default was added later, and older entries lack it.

    Attributes:
        number: 1 for the first entry; the highest is in service.
        model: key of the served model's `.keras` file, in the same store.
        sha256: of that file.
        run: URI of the run it comes from.
        evaluation_sha256: of that run's `evaluation.json`.
        threshold: probability at or above which an image counts as positive; null where there are more than two
            classes, of which the most probable counts.
        test_loss: in nats.
        test_roc_auc: of more than two classes, the mean of each against the rest.
        promoted_at: when, in UTC.
        promoted_by: who, as `training.who` says.
        data: of the images it was trained, validated and tested on; drift is measured from it.
        data_sha256: of that run's images: their paths, contents and labels, as `training.manifest.digest` has it.
        code: the commit that promoted it.
        files: SHA-256 of every file beside the model, itself among them, by name.
        rolled_back_to: the earlier number this entry brings back, if it does.
        prior_shift: what serving adds to each of the network's outputs.
        warm_nights: without a whole training, see `training.warm_start`; 0 for one that began from pretrained weights.
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
    promoted_by: str | None = None
    data: DataSummary | None = None
    data_sha256: str | None = None
    code: str | None = None
    files: dict[str, str] = {}
    rolled_back_to: int | None = None
    prior_shift: tuple[float, ...] = ()
    warm_nights: int = 0

    @property
    def folder(self) -> str:
        """Prefix of the keys of `files`."""
        return self.model.removesuffix(_MODEL)


def history(store: Store) -> list[Champion]:
    """All entries, the oldest first.

    Raises:
        StoreError: an entry is missing, damaged or not an entry.
    """
    return [_entry(store, number) for number in range(1, _newest(store) + 1)]


def current(store: Store) -> Champion | None:
    """The champion in service; None before the first promotion.

    Raises:
        StoreError: an entry is missing, or the newest is damaged or not an entry.
    """
    newest = _newest(store)
    return _entry(store, newest) if newest else None


def read_model(store: Store, entry: Champion) -> bytes:
    """The champion's `.keras` file, its checksum verified.

    Raises:
        StoreError: it is missing or damaged.
    """
    return _verified(store, entry.model, entry.sha256)


def verify(store: Store, entry: Champion) -> None:
    """Read every file of the champion; raises StoreError where one is missing or damaged."""
    read_model(store, entry)
    for name, sha256 in entry.files.items():
        _verified(store, entry.folder + name, sha256)


def stored_under(files: Mapping[str, bytes]) -> str:
    """The key of the model among `files` (content by name, `model.keras` one of them), made from all their content."""
    digest = hashlib.sha256(as_json(digests(files))).hexdigest()
    return f"models/{digest[:16]}/{_MODEL}"


def digests(files: Mapping[str, bytes]) -> dict[str, str]:
    """SHA-256 of each file, by name."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}


def publish(store: Store, entry: Champion, files: Mapping[str, bytes]) -> None:
    """Store the files of a new champion, then its entry; killed in between, it leaves the champion as it was.

    Raises:
        Superseded: somebody else has taken the entry's number.
    """
    for name, content in files.items():
        store.write(entry.folder + name, content)
    if not append(store, entry):
        raise Superseded(f"champion {entry.number}: another run was promoted first", remedy="Nothing to do.")


def append(store: Store, entry: Champion) -> bool:
    """Add the entry if nobody else has taken its number; False when somebody has."""
    tree = entry.tree()
    return store.create(_key(entry.number), as_json(tree | {_CHECKSUM: _checksum(tree)}))


def before(entries: list[Champion]) -> Champion | None:
    """The entry that a rollback leads to; None if there is none.

    A rollback takes away what it goes back from: no later one leads there again.
    """
    standing: list[Champion] = []
    for entry in entries:
        if entry.rolled_back_to is None:
            standing.append(entry)
        else:
            standing = [earlier for earlier in standing if earlier.number <= entry.rolled_back_to]
    return standing[-2] if len(standing) > 1 else None


def roll_back(store: Store, now: str, who: str | None = None) -> Champion:
    """Append the entry before the present one again, see `before`.

    Raises:
        ConfigError: there is none.
        StoreError: its model is gone or damaged.
        Superseded: a promotion came first.
    """
    entries = history(store)
    earlier = before(entries)
    if earlier is None:
        raise ConfigError(received("--rollback", f"a history of {len(entries)}", "an earlier entry to go back to"))
    verify(store, earlier)
    changes = {"number": entries[-1].number + 1, "rolled_back_to": earlier.number}
    back = earlier.model_copy(update=changes | {"promoted_at": now, "promoted_by": who})
    if not append(store, back):
        raise Superseded(f"champion {back.number}: a promotion came first", remedy="Look at the history and try again.")
    return back


def _newest(store: Store) -> int:
    """The highest number; 0 before the first."""
    keys = [item.key for item in store.list(_HISTORY)]
    if not keys:
        return 0
    newest = _number(store, keys[-1])
    for key in map(_key, range(1, newest)):
        # A listing made while others promote may leave out an entry and hold the one after it.
        if key not in keys and not store.exists(key):
            raise StoreError(received(store.uri(key), "no entry", f"all numbers up to {newest}"), remedy=_RESTORE)
    return newest


def _number(store: Store, key: str) -> int:
    name = key.removeprefix(_HISTORY).removesuffix(".json")
    if not name.isdecimal() or key != _key(int(name)):
        raise StoreError(received(store.uri(key), "a file that is no entry", f"files like {_key(1)}"))
    return int(name)


def _entry(store: Store, number: int) -> Champion:
    key = _key(number)
    try:
        tree: dict[str, Any] = dict(json.loads(store.read(key)))
        checksum = tree.pop(_CHECKSUM, None)
        entry = Champion.model_validate(tree)
    except (TypeError, ValueError):  # pydantic's and json's errors are ValueErrors
        raise StoreError(
            received(store.uri(key), "an unreadable entry", "a champion's JSON"), remedy=_RESTORE
        ) from None
    if entry.number != number or checksum not in (None, _checksum(tree)):
        raise StoreError(received(store.uri(key), "a damaged entry", f"entry {number}, unchanged"), remedy=_RESTORE)
    return entry


def _verified(store: Store, key: str, sha256: str) -> bytes:
    content = store.read(key)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise StoreError(received(store.uri(key), "damaged content", f"SHA-256 {sha256}"), remedy=_RESTORE)
    return content


def _key(number: int) -> str:
    return f"{_HISTORY}{number:08d}.json"


def _checksum(tree: Mapping[str, Any]) -> str:
    """SHA-256 of an entry's other fields: a flipped bit may leave valid JSON that says something else."""
    return hashlib.sha256(as_json(tree)).hexdigest()
