"""Ending what was started: whole trees, processes in sessions of their own, and what a killed runner left behind.

A process of ours is found in three ways, as none is enough: it descends from a component (an orphan does not), it
belongs to a component's session (a task may have its own), or its environment carries our mark (Airflow gives its
processes titles, which are written over the environment).
"""

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import psutil

# Every process the runner starts carries this in its environment, and so do its children.
MARKER = "NIGHTSHIFT_STARTED_IN"
_PATIENCE = 6.0


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, a closed terminal or a polite kill."""


def raise_on_signals() -> None:
    """From now on SIGINT, SIGTERM and SIGHUP raise Interrupted in the main thread."""

    def interrupt(number: int, _frame: object) -> None:
        ignore_signals()
        raise Interrupted(signal.Signals(number).name)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


def ignore_signals() -> None:
    """Cleaning up is short and must not be cut short."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def trees(pids: Iterable[int]) -> list[psutil.Process]:
    """The processes and all their descendants, whatever sessions those moved to."""
    found: list[psutil.Process] = []
    for root in _alive(pids):
        with contextlib.suppress(psutil.Error):
            found += [root, *root.children(recursive=True)]
    return found


def listens(pid: int, port: int) -> bool:
    """Whether the process or a descendant is the one that listens on `port`."""
    for process in trees([pid]):
        with contextlib.suppress(psutil.Error):
            for connection in process.net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                    return True
    return False


def remember(home: Path, pids: Iterable[int]) -> None:
    """Write down the components, so that the next runner can end them if this one is killed."""
    started = {str(one.pid): one.create_time() for one in _alive(pids)}
    _record(home).write_text(json.dumps(started))


def _alive(pids: Iterable[int]) -> Iterator[psutil.Process]:
    """Those of the processes that are there."""
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            yield psutil.Process(pid)


def remembered(home: Path) -> Iterator[psutil.Process]:
    """The components written down last and whatever belongs to their sessions."""
    try:
        started = {int(pid): float(when) for pid, when in json.loads(_record(home).read_text()).items()}
    except (OSError, ValueError):
        return
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            # A later process may have got the number; one as old as the component or older is none of ours.
            session = os.getsid(process.pid)
            if session in started and process.create_time() >= started[session]:
                yield process


def marked(home: Path) -> Iterator[psutil.Process]:
    """Every process that carries `home`'s mark, orphans too."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(MARKER) == str(home):
                yield process


def end(home: Path, pids: Iterable[int] = ()) -> int:
    """End these trees and all else that is `home`'s; returns how many processes that were."""
    processes = _ours(home, pids)
    _signal(processes.values(), psutil.Process.terminate)
    psutil.wait_procs(list(processes.values()), timeout=_PATIENCE)
    # Those that did not listen, and children born meanwhile.
    late = {pid: one for pid, one in (processes | _ours(home, processes)).items() if one.is_running()}
    _signal(late.values(), psutil.Process.kill)
    psutil.wait_procs(list(late.values()), timeout=_PATIENCE)
    _record(home).unlink(missing_ok=True)
    return len(processes)


def _ours(home: Path, pids: Iterable[int]) -> dict[int, psutil.Process]:
    roots = {*pids, *(one.pid for one in marked(home)), *(one.pid for one in remembered(home))}
    return {one.pid: one for one in trees(roots)}


def _record(home: Path) -> Path:
    return home / "processes.json"


def _signal(processes: Iterable[psutil.Process], act: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            act(process)
