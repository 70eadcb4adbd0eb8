"""What is no longer as it was when an earlier run was made, told in one line each."""

from collections.abc import Iterator, Mapping
from typing import Any

from training import provenance
from training.store import open_store

_UNKNOWN = "unknown"


def changes_since(earlier_uri: str, run_uri: str) -> list[str]:
    """How the run at `run_uri`, whose data have been read, differs in the making from an earlier one."""
    then, now = (provenance.read(open_store(uri)) for uri in (earlier_uri, run_uri))
    return changes(then, provenance.environment(), now["data_sha256"])


def changes(then: Mapping[str, Any], here: Mapping[str, Any], data_sha256: str) -> list[str]:
    """How repeating a run differs from the run.

    Args:
        then: the earlier run's provenance, or nothing.
        here: the environment of now, see `training.provenance.environment`.
        data_sha256: of the data as the new run found them.

    Returns:
        One line each for code, versions, machine and data that differ or cannot be compared.
    """
    if not then.get("environments"):
        return ["code, versions, machine: unknown then, so they cannot be compared", *_data(then, data_sha256)]
    lines = [line for earlier in then["environments"].values() for line in _environment(earlier, here)]
    return [*dict.fromkeys(lines), *_data(then, data_sha256)]


def _environment(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    yield from _code(then["code_commit"], now["code_commit"])
    versions = {"python": then["python"]} | then["versions"], {"python": now["python"]} | now["versions"]
    differing = [_differs(name, version, versions[1].get(name, "nothing")) for name, version in versions[0].items()]
    if told := [text for text in differing if text]:
        yield f"versions: {', '.join(told)}"
    machine = [_differs(name, then[name], now[name]) for name in ("processor", "threads")]
    if told := [text for text in machine if text]:
        yield f"machine: {', '.join(told)}; the last bits of numbers may differ"


def _code(then: str | None, now: str | None) -> Iterator[str]:
    if then != now:
        yield f"code: commit {then or _UNKNOWN} then, {now or _UNKNOWN} now"
    elif then is None:
        yield "code: commit unknown then and now, so it cannot be compared"
    elif then.endswith(provenance.CHANGED):
        yield f"code: commit {then} then and now, so the changes cannot be compared"


def _data(then: Mapping[str, Any], now: str) -> Iterator[str]:
    before = then.get("data_sha256")
    if before != now:
        yield f"data: {before or _UNKNOWN} then, {now} now (SHA-256 of the images' paths, contents and labels)"


def _differs(name: str, then: object, now: object) -> str:
    return "" if then == now else f"{name} {then} then, {now} now"
