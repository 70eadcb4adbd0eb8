"""Recipes for the default model, side by side: chosen on validation, over seeds and splits, with what training costs.

    python benchmarks/recipes.py [--seeds 0 1 2] [--only "lr 1e-3" "lr 3e-4" …] [--at-once 2]

Each seed is also the salt of the splits. What is looked at is the validation split, by the model that would be served;
test images are looked at by nothing here. Differences of less than 0.03 in ROC AUC are within what 400 validation
images can tell. Nights that run at once share the machine, which their seconds show.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import mean

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "dags" / "models" / "solar_cells.yaml"
_GENTLE = ["train.learning_rate=0.0003"]
_FLIPS = ["augment.flips=both", "augment.apply_to=all"]
RECIPES = {
    "lr 3e-4, flips": [*_GENTLE, *_FLIPS],
    "lr 1e-3": ["train.learning_rate=0.001"],
    "batch_norm_free": ["model.policy=batch_norm_free", "train.learning_rate=0.0001"],
    "lr 3e-4": _GENTLE,
    "lr 3e-4, flips, 112 px, 2 epochs": [*_GENTLE, *_FLIPS, "model.input_size=112", "train.epochs=2"],
    "frozen_batch_norm": ["model.policy=frozen_batch_norm", "train.learning_rate=0.0001"],
    "features, 30 epochs": ["model.policy=features", "train.epochs=30"],
    "last two blocks": ["model.trainable_layers=last_blocks"],
    "lr 3e-4, flips, head first": [*_GENTLE, *_FLIPS, "train.head_epochs=1"],
    "64 px, 5 epochs": ["model.input_size=64", "train.epochs=5", *_GENTLE],
    "lr 3e-3": ["train.learning_rate=0.003"],
}
STEPS = ("ingest", "validate", "oversample", "train", "recalibrate_batch_norm")
# Validation loss, its ROC AUC, seconds of training.
Night = tuple[float, float, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=list(RECIPES), choices=list(RECIPES), metavar="RECIPE")
    parser.add_argument("--at-once", type=int, default=1, help="nights that run at the same time")
    options = parser.parse_args()
    print("| recipe | validation loss | validation ROC AUC | training, s | settings |")
    print("| --- | --: | --: | --: | --- |", flush=True)
    # Each night in a process of its own, so that none sees another's state.
    workers = multiprocessing.get_context("spawn").Pool(options.at_once, maxtasksperchild=1)
    with tempfile.TemporaryDirectory() as folder, workers as pool:
        wanted = [(recipe, seed) for recipe in options.only for seed in options.seeds]
        nights = pool.imap(partial(night, Path(folder)), wanted, chunksize=1)
        for recipe in options.only:
            print(row(recipe, [next(nights) for _ in options.seeds]), flush=True)


def night(folder: Path, wanted: tuple[str, int]) -> Night:
    from training.config import load_config, parse_settings
    from training.steps import run_step

    recipe, seed = wanted
    where = [f"store.champion={folder}/champion", f"store.runs={folder}"]
    config = load_config(CONFIG, parse_settings([f"seed={seed}", f"split.salt=night-{seed}", *where, *RECIPES[recipe]]))
    run = folder / f"{list(RECIPES).index(recipe)}-{seed}"
    for step in STEPS:
        run_step(step, config, str(run))
    steps = json.loads((run / "provenance.json").read_text())["steps"]
    return (*validation(config, str(run)), steps["train"]["seconds"])


def validation(config: object, folder: str) -> tuple[float, float]:
    """Loss and ROC AUC of the model that would be served, its prior corrected."""
    from training.calibration import serving_prior
    from training.logits import in_batches, inference_logits
    from training.metrics import ranking
    from training.run_folder import open_run
    from training.steps.inputs import labelled_split, read_plan
    from training.steps.recalibrate_batch_norm import load

    run = open_run(config, folder)  # type: ignore[arg-type]
    images, labels = labelled_split(run, "validation")
    forward = inference_logits(load(run, run.store.read("recalibrated/model.keras")))
    raw = in_batches(forward, images, 32)
    prior = serving_prior(read_plan(run), natural_statistics=False, logits=raw, labels=labels)
    found = ranking(prior.corrected(raw), labels)
    return found["loss"], found["roc_auc"]


def row(recipe: str, nights: Sequence[Night]) -> str:
    losses, aucs, seconds = zip(*nights, strict=True)
    cells = [f"{mean(values):.3f} ({min(values):.3f} to {max(values):.3f})" for values in (losses, aucs)]
    settings = ", ".join(f"`{one}`" for one in RECIPES[recipe]) or "–"
    return f"| {recipe} | {cells[0]} | {cells[1]} | {mean(seconds):.0f} | {settings} |"


if __name__ == "__main__":
    main()
