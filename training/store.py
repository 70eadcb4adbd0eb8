"""Folders and S3 prefixes behind one small face; the only module that imports boto3.

Every write is whole or absent: locally a temporary file is linked or renamed into place, on S3 a PUT is atomic.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from training.errors import ConfigError, StoreError, received

S3 = "s3://"


class NotFound(StoreError):
    """Nothing is stored under that key."""


@dataclass(frozen=True)
class Entry:
    """One stored object: its key, size in bytes, and a `version` that changes when the content does."""

    key: str
    size: int
    version: str


class Store(Protocol):
    """What a folder and a bucket's prefix have in common; keys are relative, with forward slashes."""

    def read(self, key: str) -> bytes:
        """The whole content; raises NotFound."""

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

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise NotFound(received("key", self.uri(key), "a stored file")) from None
        except OSError as error:
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
        folder = self._path(prefix.rpartition("/")[0]) if "/" in prefix else self.root
        for path in sorted(folder.rglob("*")):
            key = path.relative_to(self.root).as_posix()
            if key.startswith(prefix) and path.is_file() and not path.name.startswith(_TEMPORARY):
                status = path.stat()
                yield Entry(key, status.st_size, str(status.st_mtime_ns))

    def uri(self, key: str = "") -> str:
        return str(self._path(key))

    def _path(self, key: str) -> Path:
        if PurePosixPath(key).is_absolute() or ".." in PurePosixPath(key).parts:
            raise StoreError(received("key", key, f"a path inside {self.root}"), cause="outside")
        return self.root / key


class S3Store:
    """A prefix of a bucket; credentials, region and endpoint come from boto3's own configuration."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket, self.prefix = bucket, prefix

    def read(self, key: str) -> bytes:
        body = self._call("get_object", key)["Body"]
        try:
            return bytes(body.read())
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
    return StoreError(f"{uri}: {error.strerror or type(error).__name__}", cause="store")


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
    if code in {"404", "NoSuchKey", "NotFound", "NoSuchBucket"}:
        return NotFound(received("key", uri, "a stored object"))
    if code in {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}:
        return _AlreadyThere(received("key", uri, "no such object yet"))
    return StoreError(f"{uri}: the object store answered {code}", remedy="Check the bucket's policy and credentials.")
