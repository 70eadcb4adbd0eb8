"""What a second night costs whose data are nearly those of the first: reading, validating, and features.

    python benchmarks/second_night.py [--new 0.01] [--size 224] [--copies 4]

The sample images, each also mirrored (with four copies: both ways and turned), so that there are more of them. The
steps `ingest` and `validate`, and the features of all training and validation images as `train` gets them, each timed
within the process: Python's start and the head's training are the same every night, and left out.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pandas as pd
from many_cells import many_cells

from training.config import load_config
from training.run_folder import open_run
from training.steps import run_step
from training.steps.train import WHOLE, _features, _model

MODEL = Path(__file__).resolve().parent.parent / "dags" / "models" / "solar_cells.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--new", type=float, default=0.01, help="share of the second night's images that are new")
    parser.add_argument("--size", type=int, default=112, help="side, in pixels")
    parser.add_argument("--copies", type=int, default=4, choices=(1, 2, 3, 4))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = many_cells(folder, options.copies)
        later = rows.sample(frac=options.new, random_state=0).index
        nights = [night(folder, rows.drop(later), "first", options.size), night(folder, rows, "second", options.size)]
    print(f"{'seconds':12}{'images':>8}{'ingest':>9}{'validate':>10}{'features':>10}{'all':>9}")
    for name, seconds, images in nights:
        print(
            f"{name:12}{images:8}"
            + "".join(f"{value:{w}.2f}" for value, w in zip((*seconds, sum(seconds)), (9, 10, 10, 9), strict=True))
        )
    first, second = (sum(seconds) for _, seconds, _ in nights)
    print(f"the second night's part of the first's: {second / first:.1%}")


def night(folder: Path, rows: pd.DataFrame, name: str, size: int) -> tuple[str, list[float], int]:
    """Seconds of each part."""
    rows.to_csv(folder / "cells" / "labels.csv", index=False)
    settings = {
        "data.uri": str(folder / "cells"),
        "store.runs": str(folder / "runs"),
        "store.champion": str(folder / "champion"),
        "model.policy": "features",
        "model.input_size": size,
    }
    config, run = load_config(MODEL, settings), str(folder / "runs" / name)
    seconds = [timed(lambda step=step: run_step(step, config, run)) for step in ("ingest", "validate")]
    run_step("oversample", config, run)
    opened = open_run(config, run)
    model = _model(opened)
    seconds.append(timed(lambda: [np.asarray(found) for found in _features(opened, model, WHOLE).values()]))
    return name, seconds, len(rows)


def timed(work: object) -> float:
    begun = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
