"""What is computed from one image alone, its pixels or its features, is computed once for ever and kept in a store.

Files hold pairs of an image's SHA-256 and its row. Each is named by the SHA-256 of its own content and never changed,
so two writers cannot harm each other, and a damaged file gives itself away. Losing them costs time alone.
"""

import hashlib
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import Any

import numpy as np

from training.errors import StoreError
from training.rows import Rows, let_go
from training.run_folder import as_json
from training.store import NotFound, Store
from training.threads import in_order

log = logging.getLogger(__name__)
COMPUTED = "computed/"
# Of files of so many bytes, a few are in memory while they are looked through, however many there are.
_FILE_BYTES, _FILES_AT_ONCE = 2**26, 2
_SHA256 = 32
# Of images by their SHA-256, the rows one by one in order.
Compute = Callable[[list[str]], Iterable[np.ndarray]]
Files = dict[str, np.ndarray]


class ComputedOnce:
    """The rows of one recipe.

    Args:
        kind: what a row is, in a word; names the folder.
        recipe: all that decides a row besides the image's content, as plain JSON values.
        shape: of a row.
        most_bytes: of everything that is kept in the store, of whatever recipe.
    """

    def __init__(
        self, store: Store, kind: str, recipe: Mapping[str, Any], shape: tuple[int, ...], dtype: str, most_bytes: int
    ) -> None:
        self.store, self.most_bytes = store, most_bytes
        self.folder = _folder(kind, recipe)
        self.pair = np.dtype([("image", "S64"), ("row", dtype, shape)])
        self.full = max(1, _FILE_BYTES // self.pair.itemsize)

    def rows(self, images: Sequence[str], compute: Compute) -> Rows:
        """One row an image; those that nobody has computed are, and are kept.

        File by file, so that little is held at a time and an interrupted night has not computed in vain.
        """
        files = self._files()
        places = _places(files, images)
        missing = list(dict.fromkeys(np.array(images, object)[places < 0]))
        if missing:
            self._add(files, missing, compute)
            self._make_room(files)
            places = _places(files, images)
        return _rows(files, places, np.empty(0, self.pair))

    def _files(self) -> Files:
        keys = [entry.key for entry in self.store.list(self.folder)]
        found = zip(keys, in_order(self._read, keys, _FILES_AT_ONCE), strict=True)
        return {key: pairs for key, pairs in found if pairs is not None}

    def _read(self, key: str) -> np.ndarray | None:
        """None for a file that is gone or not what was written."""
        try:
            content = self.store.mapped(key)
        except StoreError as error:
            if isinstance(error, NotFound):
                return None
            if error.cause != "damaged":
                raise
            content = b""
        if self._key(content) == key:
            pairs = np.frombuffer(content, self.pair)
            let_go(pairs)
            return pairs
        log.warning("%s is damaged: its rows are computed again", self.store.uri(key))
        self.store.delete(key)
        return None

    def _key(self, content: Any) -> str:
        return f"{self.folder}{hashlib.sha256(content).hexdigest()}.rows"

    def _add(self, files: Files, missing: list[str], compute: Compute) -> None:
        # A night brings few images: they join a file that is hardly begun, or there would be one a night for ever.
        begun = next((key for key, pairs in files.items() if len(pairs) < self.full // 2), None)
        earlier = files.pop(begun) if begun else np.empty(0, self.pair)
        new = zip((name.encode() for name in missing), compute(missing), strict=True)
        pairs = chain(map(tuple, earlier), new)
        for _ in range(0, len(earlier) + len(missing), self.full):
            self._keep(files, np.fromiter(islice(pairs, self.full), self.pair))
        if begun and begun not in files:
            self.store.delete(begun)

    def _keep(self, files: Files, pairs: np.ndarray) -> None:
        content = pairs.tobytes()
        key = self._key(content)
        self.store.write(key, content)
        kept = self._read(key)
        files[key] = pairs if kept is None else kept  # another night may have made room already

    def _make_room(self, using: Collection[str]) -> None:
        """Remove what is not being used, and then what is, until the rest is no more than is allowed."""
        entries = list(self.store.list(COMPUTED))
        excess = sum(entry.size for entry in entries) - self.most_bytes
        for entry in sorted(entries, key=lambda entry: entry.key in using):
            if excess > 0:
                self.store.delete(entry.key)
                excess -= entry.size


def bytes_once(store: Store, kind: str, recipe: Mapping[str, Any], compute: Callable[[], bytes]) -> bytes:
    """What `compute` gives, by a recipe without an image: computed, unless it was before and is undamaged."""
    key = f"{_folder(kind, recipe)}content"
    with suppress(NotFound):
        kept = store.read(key)
        digest, content = kept[:_SHA256], kept[_SHA256:]
        if hashlib.sha256(content).digest() == digest:
            return content
        log.warning("%s is damaged: computed again", store.uri(key))
    content = compute()
    store.write(key, hashlib.sha256(content).digest() + content)
    return content


def _folder(kind: str, recipe: Mapping[str, Any]) -> str:
    return f"{COMPUTED}{kind}-{hashlib.sha256(as_json(recipe)).hexdigest()[:16]}/"


def _places(files: Files, images: Sequence[str]) -> np.ndarray:
    """Where each image is among all pairs of the files, one file after the other; -1 for one that is not."""
    known = np.concatenate([np.empty(0, "S64"), *map(_names, files.values())])
    wanted = np.array(images, "S64")
    if not len(known):
        return np.full(len(wanted), -1)
    order = np.argsort(known, kind="stable")
    places = order[np.minimum(np.searchsorted(known, wanted, sorter=order), len(known) - 1)]
    return np.where(known[places] == wanted, places, -1)


def _names(pairs: np.ndarray) -> np.ndarray:
    names = pairs["image"].copy()
    let_go(pairs)  # with the names came the rows that lie between them
    return names


def _rows(files: Files, places: np.ndarray, none: np.ndarray) -> Rows:
    ends = np.cumsum([0, *(len(pairs) for pairs in files.values())])
    part = np.searchsorted(ends, places, side="right") - 1
    return Rows([pairs["row"] for pairs in files.values()] or [none["row"]], part, places - ends[part])
