"""Whether a failure, however deep it arose, comes from a full disk."""

import errno
import os
from collections.abc import Iterator

from training.errors import StoreError

# No space left, quota used up, larger than a file may be.
_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# The last is what Python's tempfile says when it could write nowhere.
_WORDS = (*map(os.strerror, _CODES), "No usable temporary directory found")
CAUSE = "disk_full"
REMEDY = "Make room where runs, stores and temporary files (TMPDIR) are kept, then give the same command again."


def is_disk_full(error: BaseException) -> bool:
    """Whether the error, or one that led to it, says so; HDF5 and TensorFlow say it in words alone."""
    return any(_says_so(link) for link in _chain(error))


def disk_full(error: BaseException, where: str) -> StoreError:
    """The failure as it is told: what could not be written, and why."""
    words = next(word for link in _chain(error) if (word := _says_so(link)))
    return StoreError(f"{where}: not written, the disk is full ({words})", cause=CAUSE, remedy=REMEDY)


def _says_so(error: BaseException) -> str | None:
    if isinstance(error, OSError) and error.errno in _CODES:
        return os.strerror(error.errno)
    return next((word for word in _WORDS if word in str(error)), None)


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__
