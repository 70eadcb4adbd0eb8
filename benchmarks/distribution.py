"""Oversampled or natural images for recalibration, one pass or self-consistent: what each does to the same weights.

    python -m training study --config dags/models/solar_cells.yaml --out studies/solar_cells
    python benchmarks/distribution.py studies/solar_cells/runs/trainable-[012]

Each run's checkpoint is recalibrated and evaluated anew in a copy of its folder.
"""

import argparse
import json
import logging
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from training.config import RunConfig, from_json, parse_config, to_json
from training.errors import NightshiftError
from training.steps import run_step

WAYS = (("oversampled", "one_pass"), ("oversampled", "self_consistent"), ("natural", "one_pass"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs with the policy trainable")
    options = parser.parse_args()
    logging.getLogger("training").setLevel(logging.WARNING)
    print(f"{'run':15}{'images':13}{'mode':17}  E − C  shift  test loss: raw, served  ECE: raw, served  ROC AUC")
    for run in options.runs:
        for distribution, mode in WAYS:
            print(f"{run.name:15}{distribution:13}{mode:17}{_line(run, distribution, mode)}", flush=True)


def _line(run: Path, distribution: str, mode: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(run, Path(folder) / "run"))
        config = _changed(copy, distribution, mode)
        for step in ("recalibrate_batch_norm", "evaluate"):
            _done(step, config, copy)
        found = json.loads((copy / "evaluation.json").read_text())
    losses, before, after = found["losses"], found["calibration"]["before"], found["calibration"]["after"]
    shift = found["prior"]["shift"][1] - found["prior"]["shift"][0]
    return (
        f"{losses['inference'] - losses['batch_statistics']:7.3f}{shift:7.2f}"
        f"{before['log_loss']:16.3f}{after['log_loss']:8.3f}{before['expected_calibration_error']:10.3f}"
        f"{after['expected_calibration_error']:8.3f}{found['metrics']['test']['roc_auc']:9.3f}"
    )


def _done(step: str, config: RunConfig, copy: Path) -> None:
    try:
        run_step(step, config, str(copy))
    except NightshiftError as error:
        if step != "evaluate":  # a refused model has been evaluated all the same
            raise
        print(f"  refused: {error.message}")


def _changed(copy: Path, distribution: str, mode: str) -> RunConfig:
    tree = from_json((copy / "config.json").read_bytes()).model_dump(mode="json")
    tree["recalibrate"] |= {"distribution": distribution, "mode": mode}
    config = parse_config(tree)
    (copy / "config.json").write_bytes(to_json(config))
    return config


if __name__ == "__main__":
    main()
