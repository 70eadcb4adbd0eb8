"""What a folder and a bucket's prefix have in common."""

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from training.errors import StoreError, received

Buffer = bytes | mmap.mmap


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
    """Keys are relative, with forward slashes.

    Attributes:
        readers: how many threads that read and work on what they read are fastest.
    """

    readers: int

    def read(self, key: str, at_most: int | None = None) -> bytes:
        """The whole content; raises NotFound, or TooLarge when it has more bytes than `at_most`, without reading it."""

    def mapped(self, key: str) -> Buffer:
        """The whole content, read where it is looked at; it stays whatever happens to `key`. Raises NotFound."""

    def write(self, key: str, content: bytes) -> None:
        """Replace or make `key`, whole or not at all."""

    def create(self, key: str, content: bytes) -> bool:
        """Make `key` only if it does not exist; False when it does. Atomic among all writers."""

    def exists(self, key: str) -> bool: ...

    def delete(self, key: str) -> None:
        """Remove `key`; nothing happens when it is not there."""

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Every entry whose key begins with `prefix`, in order of keys."""

    def folders(self) -> Iterator[str]:
        """The first part of every key that has several parts, each once, in order; without looking at each file."""

    def uri(self, key: str = "") -> str:
        """Where `key` can be found from outside."""

    def sweep(self) -> None:
        """Remove what killed writers left unfinished; for a store that nobody else is writing to."""

    def remove_empty_folders(self) -> None:
        """Remove the folders in which nothing is, which a store may not have; for a store that nobody writes to."""


def refuse_large(uri: str, size: int, at_most: int | None) -> None:
    if at_most is not None and size > at_most:
        raise TooLarge(received(uri, f"{size} bytes", f"at most {at_most}"))


def mapping(file: BinaryIO) -> Buffer:
    """The file's content, in memory only where it is looked at."""
    empty = not os.fstat(file.fileno()).st_size
    return b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
