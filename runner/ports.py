"""Ports that are free on this machine, the usual ones first."""

import errno
import fcntl
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

LOCALHOST = "127.0.0.1"


def free_port(preferred: int, taken: frozenset[int] = frozenset()) -> int:
    """`preferred` if nobody listens there, else one the system picks; never one of `taken`."""
    if preferred and preferred not in taken and _is_free(preferred):
        return preferred
    while (port := _any_port()) in taken:
        pass
    return port


@contextmanager
def reserved_ports(*preferred: int) -> Iterator[list[int]]:
    """One free port for each, all different, and none that another checkout's runner is about to use."""
    with ExitStack() as held:
        found: list[int] = []
        for port in preferred:
            chosen = free_port(port, frozenset(found))
            while not _claim(chosen, held):
                chosen = free_port(0, frozenset(found))
            found.append(chosen)
        yield found


def _claim(port: int, held: ExitStack) -> bool:
    """Airflow takes seconds from its start to listening; this lock speaks for it until then and after."""
    try:
        file = held.enter_context((Path(tempfile.gettempdir()) / f"nightshift-port-{port}.lock").open("a"))
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_free(port: int) -> bool:
    # On every address: a server on any of them would get, or refuse, what is meant for ours.
    for family, host in ((socket.AF_INET, ""), (socket.AF_INET6, "::")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind((host, port))
        except OSError as error:
            if family == socket.AF_INET or error.errno == errno.EADDRINUSE:
                return False
    return True


def _any_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOCALHOST, 0))
        return int(probe.getsockname()[1])
