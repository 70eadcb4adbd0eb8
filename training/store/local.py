"""A folder as a store; every file in it is whole and has reached the disk."""

import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from training.disk_full import disk_full, is_disk_full
from training.errors import StoreError, received
from training.processors import usable
from training.store.face import Buffer, Entry, NotFound, mapping, refuse_large


class LocalStore:
    """A folder."""

    readers = usable()

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, key: str, at_most: int | None = None) -> bytes:
        with self._open(key) as file:
            refuse_large(self.uri(key), os.fstat(file.fileno()).st_size, at_most)
            return file.read()

    def mapped(self, key: str) -> Buffer:
        with self._open(key) as file:
            return mapping(file)

    def write(self, key: str, content: bytes) -> None:
        path = self._path(key)
        with _whole_file(path, content) as temporary:
            os.replace(temporary, path)
            _sync_folder(path.parent)

    def create(self, key: str, content: bytes) -> bool:
        path = self._path(key)
        with _whole_file(path, content) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            _sync_folder(path.parent)
        return True

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def delete(self, key: str) -> None:
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise _os_error(error, self.uri(key)) from error

    def list(self, prefix: str = "") -> Iterator[Entry]:
        below = prefix.rpartition("/")[0] + "/" if "/" in prefix else ""
        entries = _entries_below(self._path(below), below)
        yield from sorted((entry for entry in entries if entry.key.startswith(prefix)), key=lambda entry: entry.key)

    def folders(self) -> Iterator[str]:
        yield from sorted(item.name for item in _items(str(self.root)) if item.is_dir(follow_symlinks=False))

    def uri(self, key: str = "") -> str:
        return str(self._path(key))

    def sweep(self) -> None:
        for path in self.root.rglob(f"{_TEMPORARY}*"):
            _remove_unless_being_written(path)

    def remove_empty_folders(self) -> None:
        folders = [path for path in self.root.rglob("*") if path.is_dir() and not path.is_symlink()]
        for folder in (*sorted(folders, reverse=True), self.root):  # those inside before those around them
            with suppress(OSError):  # it is not empty, or not there
                folder.rmdir()

    @contextmanager
    def _open(self, key: str) -> Iterator[BinaryIO]:
        path = self._path(key)
        self._refuse_outside(path, key)
        try:
            # Not blocking, since a named pipe would be waited for until somebody writes to it.
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise NotFound(received("key", self.uri(key), "a stored file"))
                yield file
        except OSError as error:
            if error.errno in _NO_FILE:
                raise NotFound(received("key", self.uri(key), "a stored file")) from None
            raise _os_error(error, self.uri(key)) from error

    def _path(self, key: str) -> Path:
        if key.startswith("/") or ".." in key.split("/") or "\0" in key:
            raise StoreError(received("key", key, f"a path inside {self.root}"), cause="outside")
        return self.root / key

    def _refuse_outside(self, path: Path, key: str) -> None:
        """A symbolic link may lead anywhere."""
        real = Path(os.path.realpath(path)) if os.path.islink(path) else _real_folder(path.parent)
        if not real.is_relative_to(_real_folder(self.root)):
            raise StoreError(received("key", key, f"a file inside {self.root}"), cause="outside")


@lru_cache(4096)
def _real_folder(path: Path) -> Path:
    return Path(os.path.realpath(path))


_TEMPORARY = ".unfinished-"
_NO_FILE = {errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO}


def _entries_below(folder: Path, key: str) -> Iterator[Entry]:
    """Regular files; links to folders are not followed, since they may lead in circles."""
    folders = [(str(folder), key)]
    while folders:
        path, key = folders.pop()
        for item in _items(path):
            if item.is_dir(follow_symlinks=False):
                folders.append((item.path, f"{key}{item.name}/"))
            elif not item.name.startswith(_TEMPORARY) and (status := _regular(item)):
                # A change time cannot be set back, as a modification time can by copying.
                yield Entry(key + item.name, status.st_size, f"{status.st_mtime_ns}-{status.st_ctime_ns}")


def _items(folder: str) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as items:
            return list(items)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _os_error(error, folder) from error


def _regular(item: "os.DirEntry[str]") -> os.stat_result | None:
    """A regular file's status; None for anything else, broken links among them."""
    try:
        status = item.stat()
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None


@contextmanager
def _whole_file(path: Path, content: bytes) -> Iterator[str]:
    """A complete temporary file beside `path` that has reached the disk, gone on leaving whatever happened."""
    try:
        _make_folder(path.parent)
        handle, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=path.parent)
        try:
            # A writer that is killed lets go of its lock, which is how its leftovers are known.
            fcntl.flock(handle, fcntl.LOCK_EX)
            _fill(handle, content)
            yield name
        finally:
            Path(name).unlink(missing_ok=True)
            os.close(handle)
    except OSError as error:
        raise _os_error(error, str(path)) from error


def _fill(handle: int, content: bytes) -> None:
    os.fchmod(handle, 0o644)
    left = memoryview(content)
    while left:
        left = left[os.write(handle, left) :]
    os.fsync(handle)


def _remove_unless_being_written(path: Path) -> None:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
    except OSError:  # its writer holds the lock, or it is gone
        return


def _make_folder(folder: Path) -> None:
    """Make the folder and those above it, each one's name written down in the one above."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Without this a power cut could take a new name away though the content had reached the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _os_error(error: OSError, uri: str) -> StoreError:
    if is_disk_full(error):
        return disk_full(error, uri)
    cause = "forbidden" if isinstance(error, PermissionError) else "store"
    return StoreError(f"{uri}: {error.strerror or type(error).__name__}", cause=cause)
