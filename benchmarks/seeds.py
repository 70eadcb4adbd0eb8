"""The default model over several seeds: how good it is, and how stable.

    python benchmarks/seeds.py [--seeds 0 1 2] [--set train.epochs=2 ...]

Each seed is a whole night without Airflow, on the sample images, with a champion's store of its own.
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "dags" / "models" / "solar_cells.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    print("seed  verdict   fit loss  evaluate before  after  test ROC AUC (95 % interval)   seconds", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for seed in options.seeds:
            print(_line(seed, _night(Path(folder) / str(seed), seed, options.set)), flush=True)


def _night(folder: Path, seed: int, settings: list[str]) -> Path:
    """One run in a process of its own, so that no seed sees another's state; returns its folder."""
    chosen = [f"seed={seed}", f"store.champion={folder}/champion", *settings]
    arguments = [part for setting in chosen for part in ("--set", setting)]
    command = [sys.executable, "-m", "training", "run", "--config", str(CONFIG), "--run", str(folder / "run")]
    with (folder.parent / f"{seed}.log").open("w") as log:
        subprocess.run([*command, *arguments], cwd=ROOT, stdout=log, stderr=log, check=False)
    if not (folder / "run" / "verdict.json").exists():
        sys.exit((folder.parent / f"{seed}.log").read_text()[-2000:])
    return folder / "run"


def _line(seed: int, run: Path) -> str:
    evaluation, verdict, provenance = (
        json.loads((run / name).read_text()) for name in ("evaluation.json", "verdict.json", "provenance.json")
    )
    losses, test = evaluation["losses"], evaluation["metrics"]["test"]
    low, high = test["roc_auc_interval"]
    seconds = sum(step["seconds"] for step in provenance["steps"].values())
    word = "accepted" if verdict["accepted"] else verdict["reasons"][0]["cause"]
    return (
        f"{seed:4d}  {word:10}{losses['fit']:8.3f}  {losses['inference_before']:15.3f}  {losses['served']:5.3f}  "
        f"{test['roc_auc']:.3f} ({low:.3f} to {high:.3f})  {seconds:18.0f}"
    )


if __name__ == "__main__":
    main()
