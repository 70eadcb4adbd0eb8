"""Folders and S3 prefixes behind one small face; the only module that imports boto3.

Every write is whole or absent: locally a temporary file is linked or renamed into place, on S3 a PUT is atomic.
"""

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Protocol

from training.errors import ConfigError, StoreError, received

S3 = "s3://"


class NotFound(StoreError):
    """Nothing is stored under that key."""


class TooLarge(StoreError):
    """There is more under that key than the reader asked for."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored object: its key, size in bytes, and a `version` that changes when the content does."""

    key: str
    size: int
    version: str


class Store(Protocol):
    """What a folder and a bucket's prefix have in common; keys are relative, with forward slashes.

    Attributes:
        readers: how many threads that read and work on what they read are fastest.
    """

    readers: int

    def read(self, key: str, at_most: int | None = None) -> bytes:
        """The whole content; raises NotFound, or TooLarge when it has more bytes than `at_most`, without reading it."""

    def write(self, key: str, content: bytes) -> None:
        """Replace or make `key`, whole or not at all."""

    def create(self, key: str, content: bytes) -> bool:
        """Make `key` only if it does not exist; False when it does. Atomic among all writers."""

    def exists(self, key: str) -> bool: ...

    def delete(self, key: str) -> None:
        """Remove `key`; nothing happens when it is not there."""

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Every entry whose key begins with `prefix`, in order of keys."""

    def uri(self, key: str = "") -> str:
        """Where `key` can be found from outside."""


def open_store(uri: str) -> Store:
    """The store at a folder's path or an ``s3://bucket/prefix``; neither needs to exist yet."""
    if uri.startswith(S3):
        bucket, _, prefix = uri.removeprefix(S3).partition("/")
        if not bucket:
            raise ConfigError(received("URI", uri, "s3://bucket/prefix"))
        return S3Store(bucket, prefix.strip("/"))
    if "://" in uri:
        raise ConfigError(received("URI", uri, "a folder or an s3:// URI"))
    return LocalStore(Path(uri))


def read_uri(uri: str) -> bytes:
    """The content of one file named by a whole URI."""
    parent, _, name = uri.rpartition("/")
    return open_store(parent or ".").read(name)


class LocalStore:
    """A folder."""

    readers = os.cpu_count() or 1

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, key: str, at_most: int | None = None) -> bytes:
        path = self._path(key)
        self._refuse_outside(path, key)
        try:
            # Not blocking, since a named pipe would be waited for until somebody writes to it.
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise NotFound(received("key", self.uri(key), "a stored file"))
                _refuse_large(self.uri(key), status.st_size, at_most)
                return file.read()
        except OSError as error:
            if error.errno in _NO_FILE:
                raise NotFound(received("key", self.uri(key), "a stored file")) from None
            raise _os_error(error, self.uri(key)) from error

    def write(self, key: str, content: bytes) -> None:
        with _whole_file(self._path(key), content) as temporary:
            os.replace(temporary, self._path(key))

    def create(self, key: str, content: bytes) -> bool:
        with _whole_file(self._path(key), content) as temporary:
            try:
                os.link(temporary, self._path(key))
            except FileExistsError:
                return False
        return True

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        below = prefix.rpartition("/")[0] + "/" if "/" in prefix else ""
        entries = _entries_below(self._path(below), below)
        yield from sorted((entry for entry in entries if entry.key.startswith(prefix)), key=lambda entry: entry.key)

    def uri(self, key: str = "") -> str:
        return str(self._path(key))

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


class S3Store:
    """A prefix of a bucket; credentials, region and endpoint come from boto3's own configuration."""

    readers = 16  # which mostly wait for the network

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket, self.prefix = bucket, prefix

    def read(self, key: str, at_most: int | None = None) -> bytes:
        found = self._call("get_object", key)
        body = found["Body"]
        try:
            _refuse_large(self.uri(key), found["ContentLength"], at_most)
            return bytes(body.read())
        except TooLarge:
            body.close()
            raise
        except Exception as error:  # the body streams through botocore and urllib3, which raise their own kinds
            raise StoreError(f"{self.uri(key)}: reading failed ({type(error).__name__})") from error

    def write(self, key: str, content: bytes) -> None:
        self._call("put_object", key, Body=content)

    def create(self, key: str, content: bytes) -> bool:
        try:
            self._call("put_object", key, Body=content, IfNoneMatch="*")
        except _AlreadyThere:
            return False
        return True

    def exists(self, key: str) -> bool:
        try:
            self._call("head_object", key)
        except NotFound:
            return False
        return True

    def delete(self, key: str) -> None:
        self._call("delete_object", key)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        pages = _client().get_paginator("list_objects_v2")
        base = f"{self.prefix}/" if self.prefix else ""
        with _translated(self.uri(prefix)):
            for page in pages.paginate(Bucket=self.bucket, Prefix=base + prefix):
                for item in page.get("Contents", []):
                    key = item["Key"].removeprefix(base)
                    if key and not key.endswith("/"):
                        yield Entry(key, item["Size"], item["ETag"].strip('"'))

    def uri(self, key: str = "") -> str:
        return S3 + "/".join(part for part in (self.bucket, self.prefix, key) if part)

    def _call(self, operation: str, key: str, **arguments: Any) -> Any:
        whole = f"{self.prefix}/{key}" if self.prefix else key
        with _translated(self.uri(key)):
            return getattr(_client(), operation)(Bucket=self.bucket, Key=whole, **arguments)


class _AlreadyThere(StoreError):
    pass


_TEMPORARY = ".unfinished-"
_NO_FILE = {errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO}


def _refuse_large(uri: str, size: int, at_most: int | None) -> None:
    if at_most is not None and size > at_most:
        raise TooLarge(received(uri, f"{size} bytes", f"at most {at_most}"))


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
    """A complete, flushed temporary file beside `path`, gone on leaving whatever happened."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=path.parent)
        try:
            _fill(handle, content)
            yield name
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise _os_error(error, str(path)) from error


def _fill(handle: int, content: bytes) -> None:
    with os.fdopen(handle, "wb") as file:
        os.fchmod(handle, 0o644)
        file.write(content)
        file.flush()
        os.fsync(handle)


def _os_error(error: OSError, uri: str) -> StoreError:
    cause = "forbidden" if isinstance(error, PermissionError) else "store"
    return StoreError(f"{uri}: {error.strerror or type(error).__name__}", cause=cause)


@cache
def _client() -> Any:
    import boto3
    from botocore.config import Config

    # Checksum trailers by default are refused by many S3-compatible servers.
    return boto3.client(
        "s3",
        config=Config(
            retries={"mode": "standard", "max_attempts": 5},
            connect_timeout=10,
            read_timeout=60,
            max_pool_connections=32,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    """Turns boto3's exceptions into one line without credentials."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _client_error(error, uri) from None
    except BotoCoreError as error:
        raise StoreError(f"{uri}: {type(error).__name__}", remedy="Check endpoint and credentials.") from None


def _client_error(error: Any, uri: str) -> StoreError:
    code = error.response.get("Error", {}).get("Code", "unknown")
    if code in {"404", "NoSuchKey", "NotFound", "NoSuchBucket", "KeyTooLongError"}:
        return NotFound(received("key", uri, "a stored object"))
    if code in {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}:
        return _AlreadyThere(received("key", uri, "no such object yet"))
    return StoreError(f"{uri}: the object store answered {code}", remedy="Check the bucket's policy and credentials.")
