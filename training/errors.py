"""Every failure Nightshift knows, with the exit code and the words that go with it."""

EXIT_MEANINGS = {
    0: "accepted",
    1: "unexpected failure",
    2: "bad usage or configuration",
    3: "data rejected",
    4: "training and evaluation diverged",
    5: "worse than the champion",
}


# TensorFlow's, which must not be imported for their sake.
_PASSING = ("ResourceExhaustedError", "UnavailableError", "AbortedError")


class NightshiftError(Exception):
    """A failure that is told in one line.

    Attributes:
        exit_code: the process's exit code, a key of EXIT_MEANINGS.
        code: a short machine-readable name, e.g. ``data_rejected``.
        cause: what is likely behind it, e.g. ``batch_norm``; equals `code` where nothing finer is known.
        remedy: what the reader can do about it.
    """

    exit_code = 1
    code = "unexpected"

    def __init__(self, message: str, *, cause: str | None = None, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.cause = cause or self.code
        self.remedy = remedy


class ConfigError(NightshiftError):
    exit_code = 2
    code = "bad_config"


class DataRejected(NightshiftError):
    exit_code = 3
    code = "data_rejected"


class Diverged(NightshiftError):
    exit_code = 4
    code = "diverged"


class WorseThanChampion(NightshiftError):
    exit_code = 5
    code = "worse_than_champion"


class Superseded(NightshiftError):
    """Another run took the champion's next number first; trying again would not change that."""

    code = "superseded"


class StoreError(NightshiftError):
    """Storage could not be reached, refused, or holds something that cannot be read."""

    code = "store"


def may_heal(error: Exception) -> bool:
    """Whether the same step may succeed a little later: the network, the disk or the memory may have recovered.

    Bad settings, bad data, a refused model, a damaged file and a mistake in the code are the same in a minute.
    """
    if isinstance(error, NightshiftError):
        return isinstance(error, StoreError) and error.cause != "damaged"
    return isinstance(error, OSError | MemoryError) or type(error).__name__ in _PASSING


def received(field: str, value: object, expected: str) -> str:
    """The one line a user gets for bad input."""
    return f"{field}: received {value!r}, expected {expected}"
