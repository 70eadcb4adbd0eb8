"""Nothing that was started is left behind, wherever it went."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from runner import processes

# A parent, a child in a session of its own, and a grandchild that ignores polite requests.
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)
PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {STUBBORN!r}], start_new_session=True, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    monkeypatch.setattr(processes, "_PATIENCE", 0.5)


def started(home: Path, code: str, *, mark: bool = True) -> tuple[subprocess.Popen, int]:
    """A process and the number it prints: its child's."""
    environment = {processes.MARKER: str(home)} if mark else {}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    with process.stdout:
        return process, int(process.stdout.readline())


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_tree_ends_with_children_in_other_sessions(tmp_path):
    parent, child = started(tmp_path, PARENT, mark=False)
    assert processes.end(tmp_path, [parent.pid]) == 2
    assert parent.wait(5) is not None and gone(child)


def test_orphans_are_found_by_their_mark(tmp_path):
    parent, child = started(tmp_path, PARENT)
    parent.kill()
    parent.wait()
    assert not gone(child)
    processes.end(tmp_path)
    assert gone(child)


def test_what_a_killed_runner_wrote_down_is_found_without_a_mark(tmp_path):
    parent, child = started(tmp_path, PARENT, mark=False)
    processes.remember(tmp_path, [parent.pid])
    processes.end(tmp_path)
    assert parent.wait(5) is not None and gone(child)
    assert list(processes.remembered(tmp_path)) == []


def test_the_listener_on_a_port_is_told_from_others(tmp_path):
    serve = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)"
    server, port = started(tmp_path, f"{serve}; time.sleep(600)")
    assert processes.listens(server.pid, port)
    assert not processes.listens(server.pid, port + 1)
    processes.end(tmp_path)


def test_another_checkouts_processes_live_on(tmp_path):
    parent, child = started(tmp_path / "other", PARENT)
    processes.end(tmp_path)
    time.sleep(0.1)
    assert parent.poll() is None and not gone(child)
    processes.end(tmp_path / "other")


def test_a_torn_record_is_no_obstacle(tmp_path):
    (tmp_path / "processes.json").write_text("{")
    assert processes.end(tmp_path) == 0
