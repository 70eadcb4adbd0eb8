"""Folders and S3 prefixes behind one small face.

Every write is whole or absent: locally a temporary file is linked or renamed into place, on S3 a PUT is atomic.
"""

from pathlib import Path

from training.errors import ConfigError, received
from training.store.face import Entry, NotFound, Store, TooLarge
from training.store.local import LocalStore
from training.store.s3 import S3, S3Store
from training.uris import holds_credentials

__all__ = ["S3", "Entry", "LocalStore", "NotFound", "S3Store", "Store", "TooLarge", "open_store", "read_uri"]


def open_store(uri: str) -> Store:
    """The store at a folder's path or an ``s3://bucket/prefix``; neither needs to exist yet."""
    if holds_credentials(uri):
        raise ConfigError("URI: received one that holds credentials, expected them in boto3's usual places")
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
