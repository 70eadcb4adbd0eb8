"""The champion's history in one file: entries, models, what is known of the data, and the nights' records.

A tar archive whose last member, `manifest.json`, has the SHA-256 of every other, so a file that was cut off lacks it.
"""

import hashlib
import io
import json
import logging
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from training import champion
from training.computed_once import COMPUTED
from training.config import RunConfig
from training.errors import ConfigError, StoreError, received
from training.nights import records_of
from training.progress import followed
from training.run_folder import as_json
from training.store import NotFound, Store, open_store

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"
_HISTORY = "champion/history/"


def back_up(config: RunConfig, path: Path) -> int:
    """Write the archive, whole or not at all; returns how many files it holds.

    Entries come before the files they name, and a promotion stores an entry last: every entry's files are in it.

    Raises:
        StoreError: the history is damaged or incomplete, or the archive cannot be written.
    """
    verified = champion.current(open_store(config.store.champion))
    if verified is not None:
        champion.verify(open_store(config.store.champion), verified)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with _told(path), tarfile.open(temporary, "w") as archive:
            digests = dict(_add_all(config, archive))
            _add(archive, MANIFEST, as_json(digests))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return len(digests)


def restore(config: RunConfig, path: Path) -> int:
    """Put back what the archive holds, the history's entries last; returns how many files there were.

    What is known of the data and the nights' records of the same names are replaced: they belong to the history.

    Raises:
        ConfigError: there is a history already.
        StoreError: the archive is damaged; nothing was written.
    """
    stores = _stores(config)
    if champion.current(stores["champion"]) is not None:
        expected = "a store without a history; restore into another one, or remove this one first"
        raise ConfigError(received("store.champion", stores["champion"].uri(), expected))
    with _told(path):
        names = _verified(path)
        _put_back(path, stores, [name for name in names if not name.startswith(_HISTORY)])
        _put_back(path, stores, [name for name in names if name.startswith(_HISTORY)])
    return len(names)


def _stores(config: RunConfig) -> dict[str, Store]:
    """Where each of the archive's folders comes from and goes to."""
    return {
        "champion": open_store(config.store.champion),
        "data": open_store(config.store.data),
        "nights": records_of(config.store.runs, config.name),
    }


def _add_all(config: RunConfig, archive: tarfile.TarFile) -> Iterator[tuple[str, str]]:
    every = ((folder, store, entry.key) for folder, store in _stores(config).items() for entry in store.list())
    found = [one for one in every if not one[2].startswith(COMPUTED)]
    for folder, store, key in followed(found, log, "backup", len(found), "files"):
        try:
            content = store.read(key)
        except NotFound:  # outdated, and deleted since it was listed
            continue
        yield f"{folder}/{key}", _add(archive, f"{folder}/{key}", content)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> str:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
    return hashlib.sha256(content).hexdigest()


def _verified(path: Path) -> list[str]:
    """The names of all files, in order, once each was found to be what was written."""
    with tarfile.open(path) as archive:
        found = {member.name: _digest(archive, member) for member in archive}
        manifest = archive.extractfile(MANIFEST) if MANIFEST in found else None
        digests = {} if manifest is None else dict(json.loads(manifest.read()))
    found.pop(MANIFEST, None)
    if manifest is None or found != digests:
        differing = sorted(name for name in found.keys() | digests.keys() if found.get(name) != digests.get(name))
        raise _damaged(path, f"damaged: {', '.join(differing[:3])}" if manifest else f"no {MANIFEST} in it")
    return list(found)


def _digest(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    return hashlib.sha256(_content(archive, member)).hexdigest() if member.isfile() else ""


def _put_back(path: Path, stores: dict[str, Store], names: list[str]) -> None:
    with tarfile.open(path) as archive:
        for name in followed(sorted(names), log, "restore", len(names), "files"):
            folder, _, key = name.partition("/")
            stores[folder].write(key, _content(archive, archive.getmember(name)))


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    return cast(IO[bytes], archive.extractfile(member)).read()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turns what reading and writing an archive may raise into one line."""
    try:
        yield
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise _damaged(path, str(error)) from None
    except OSError as error:
        raise StoreError(received(str(path), error.strerror or str(error), "a file that can be used")) from None


def _damaged(path: Path, found: str) -> StoreError:
    return StoreError(received(str(path), found, "an archive as `backup` made it"), cause="damaged")
