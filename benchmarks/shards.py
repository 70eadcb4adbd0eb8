"""What shards cost and bring: each step's images a second, what a shard costs before its first image, and two at once.

    python benchmarks/shards.py [--batches 64]

On the sample images, every time a process of its own, as Airflow starts it. A step's time with n shards on w workers is
then

    start + images / rate                                   where it is not cut,
    ceil(n / w) * (overhead + start + images / (n * rate)) + start + merge   where it is,

with `start` (Python, TensorFlow, models, tracing) measured by a shard without images, `overhead` what Airflow adds to a
task (benchmarked by `make run`: its own line in the table of a night), and `merge` the step itself once all shards are
there. Cutting stops helping where a shard's images take no longer than its start.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from training.sample import write_sample

CHECKOUT = Path(__file__).resolve().parent.parent
MODEL = CHECKOUT / "dags" / "models" / "solar_cells.yaml"
EMPTY = 1000
SHARDED = ("ingest", "recalibrate_batch_norm", "evaluate")
BEFORE = {
    "ingest": [],
    "recalibrate_batch_norm": ["ingest", "validate", "oversample", "train"],
    "evaluate": ["ingest", "validate", "oversample", "train", "recalibrate_batch_norm"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=64, help="of 32 images, to evaluate and to recalibrate on")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        night = Night(Path(folder), options.batches)
        print(f"{'seconds':24}{'whole':>8}{'start':>8}{'merge':>8}{'half':>8}{'two halves at once':>20}")
        for step in SHARDED:
            night.measure(step)


class Night:
    """A night up to each step, copied for each measurement."""

    def __init__(self, folder: Path, batches: int) -> None:
        self.folder = folder
        write_sample(folder / "cells")
        self.settings = {
            "data.uri": folder / "cells",
            "store.runs": folder,
            "train.epochs": 1,
            "evaluate.batches": batches,
            "recalibrate.samples": batches * 32,
            "gate.max_loss_gap": 50,
            "gate.max_batch_norm_gap": 50,
        }

    def measure(self, step: str) -> None:
        whole = self._timed(step, 1, [None])
        start = self._timed(step, EMPTY, [EMPTY])
        half = self._timed(step, 2, [1])
        both = self._timed(step, 2, [1, 2], keep=True)
        merge = self._timed(step, 2, [None], kept=True)
        print(f"{step:24}{whole:8.1f}{start:8.1f}{merge:8.1f}{half:8.1f}{both:20.1f}", flush=True)

    def _timed(
        self, step: str, count: int, shards: list[int | None], *, keep: bool = False, kept: bool = False
    ) -> float:
        """Seconds until these shards, each in a process, are done; None is the step itself."""
        run = self.folder / f"{step}-{count}"
        if not kept:
            self._prepare(step, count, run)
        begun = time.perf_counter()
        processes = [self._start(step, count, run, shard) for shard in shards]
        if any(process.wait() for process in processes):
            raise SystemExit(f"{step} failed")
        seconds = time.perf_counter() - begun
        if not keep:
            shutil.rmtree(run)
        return seconds

    def _prepare(self, step: str, count: int, run: Path) -> None:
        """The run as it is before the step, with another number of shards."""
        shutil.rmtree(self.folder / "champion_data", ignore_errors=True)
        if not BEFORE[step]:
            return
        done = self.folder / "done"
        for earlier in BEFORE[step]:
            self._start(earlier, 1, done, None).wait()
        shutil.copytree(done, run)
        config = json.loads((run / "config.json").read_text())
        config["scale"]["shards"] = count
        (run / "config.json").write_text(json.dumps(config))

    def _start(self, step: str, count: int, run: Path, shard: int | None) -> subprocess.Popen[bytes]:
        settings = self.settings | {"scale.shards": count, "store.champion": self.folder / "champion"}
        command = [sys.executable, "-m", "training", step, "--config", str(MODEL), "--run", str(run)]
        command += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        command += [] if shard is None else ["--shard", str(shard)]
        return subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
