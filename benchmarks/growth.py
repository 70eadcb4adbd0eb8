"""Peak memory and time of each step, as the data set grows fourfold and sixteenfold.

    python benchmarks/growth.py [--images 640] [--epochs 1]

Sample images, the largest set with turned ones among them, through every step as a process of its own. What a step does
to a number of images that is set (recalibration, the list that losses are compared on) does not grow with the data.
A process's peak is never less than what this one held when it started it, which is why images are made by another.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from many_cells import many_cells

from training.step_names import STEPS

CHECKOUT = Path(__file__).resolve().parent.parent
MODEL = CHECKOUT / "dags" / "models" / "solar_cells.yaml"
FACTORS = (1, 4, 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--epochs", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows = pool.apply(many_cells, (folder, 4)).sample(frac=1, random_state=0)
        measured = {factor: night(folder, rows, factor, options) for factor in FACTORS}
    print(f"{'':24}" + "".join(f"{factor * options.images:>9} images " for factor in FACTORS))
    for step in STEPS:
        cells = [f"{seconds:6.1f} s {memory:5.0f} MiB" for seconds, memory in (measured[one][step] for one in FACTORS)]
        print(f"{step:24}" + " ".join(cells))


def night(folder: Path, rows: pd.DataFrame, factor: int, options: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """Seconds and peak memory (MiB) of each step."""
    rows.head(factor * options.images).to_csv(folder / "cells" / "labels.csv", index=False)
    settings = {
        "data.uri": folder / "cells",
        "store.runs": folder / "runs",
        "store.champion": folder / f"champion{factor}",
        "train.epochs": options.epochs,
        "gate.max_loss_gap": 50,
        "gate.max_batch_norm_gap": 50,
    }
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    arguments = ["--config", str(MODEL), "--run", str(folder / "runs" / str(factor)), *words]
    return {step: measured([sys.executable, "-m", "training", step, *arguments]) for step in STEPS}


def measured(command: list[str]) -> tuple[float, float]:
    begun = time.perf_counter()
    silent = os.open(os.devnull, os.O_WRONLY)
    os.chdir(CHECKOUT)
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, silent, 1)])
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"{command[3]} failed")
    return time.perf_counter() - begun, usage.ru_maxrss / 2**10


if __name__ == "__main__":
    main()
