"""Separate processes that promote at the same moment, and one that is killed while it does."""

import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys

from tests.conftest import ROOT
from training import champion
from training.champion import Champion
from training.errors import Superseded
from training.store import LocalStore, open_store

FILES = {"model.keras": b"network and weights" * 1000, "model_card.md": b"# Another model"}
WINNER_ONLY = ["superseded"]


def race(uri: str, processes: int, rounds: int) -> list[list[str]]:
    """Each process meets the same champion and publishes the next; what became of each, round by round."""
    spawned = multiprocessing.get_context("spawn")
    barrier, results = spawned.Barrier(processes), spawned.Queue()
    racers = [spawned.Process(target=_racer, args=(uri, name, rounds, barrier, results)) for name in range(processes)]
    for racer in racers:
        racer.start()
    told = [results.get(timeout=300) for _ in range(processes * rounds)]
    for racer in racers:
        racer.join(timeout=60)
    return [[word for number, word in told if number == wanted] for wanted in range(rounds)]


def _racer(uri: str, name: int, rounds: int, barrier, results) -> None:
    store = open_store(uri)
    for number in range(rounds):
        barrier.wait(timeout=300)
        head = champion.current(store)
        files = {"model.keras": hashlib.sha256(f"{name} {number}".encode()).digest() * 2000}
        barrier.wait(timeout=300)  # all have read it before anybody publishes
        try:
            publish(uri, 1 if head is None else head.number + 1, f"runs/{name}-{number}", files)
            results.put((number, "won"))
        except Superseded as lost:
            results.put((number, lost.code))


def publish(uri: str, number: int, run: str, files: dict[str, bytes]) -> None:
    digests = champion.digests(files)
    entry = Champion(
        number=number,
        model=champion.stored_under(files),
        sha256=digests["model.keras"],
        files=digests,
        run=run,
        evaluation_sha256="1" * 64,
        classes=("a", "b"),
        threshold=0.5,
        test_loss=0.4,
        test_roc_auc=0.9,
        promoted_at="2026-01-01T00:00:00+00:00",
    )
    champion.publish(open_store(uri), entry, files)


def killed_before_the_entry(folder: str, number: int) -> int:
    """The exit code of a process that gets SIGKILL once the files are stored and the entry is about to be."""
    code = f"from tests.training.racing import die; die({folder!r}, {number})"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode


def die(folder: str, number: int) -> None:
    """Promote, and get SIGKILL where the entry would be created."""
    LocalStore.create = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    publish(folder, number, "runs/killed", FILES)
