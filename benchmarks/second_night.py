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
from PIL import Image

from training.config import load_config
from training.run_folder import open_run
from training.sample import write_sample
from training.steps import run_step
from training.steps.train import WHOLE, _features, _model

MODEL = Path(__file__).resolve().parent.parent / "dags" / "models" / "solar_cells.yaml"
TURNS = (None, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.ROTATE_180)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--new", type=float, default=0.01, help="share of the second night's images that are new")
    parser.add_argument("--size", type=int, default=80, help="side, in pixels")
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


def many_cells(folder: Path, copies: int) -> pd.DataFrame:
    """The sample images as they are and turned over, which are other pictures; the rows of `labels.csv`."""
    write_sample(folder / "cells")
    rows = pd.read_csv(folder / "cells" / "labels.csv", dtype=str)
    tables = [rows]
    for number, turn in list(enumerate(TURNS))[1:copies]:
        turned = rows.assign(path=[f"turned{number}/{path}" for path in rows["path"]])
        for old, new in zip(rows["path"], turned["path"], strict=True):
            (folder / "cells" / new).parent.mkdir(parents=True, exist_ok=True)
            Image.open(folder / "cells" / old).transpose(turn).save(folder / "cells" / new)
        tables.append(turned)
    return pd.concat(tables, ignore_index=True)


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
