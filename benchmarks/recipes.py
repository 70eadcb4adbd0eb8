"""Recipes for the default model, side by side: chosen on validation, over seeds and splits, with what training costs.

    python benchmarks/recipes.py [--seeds 0 1 2] [--only "80 px" "80 px, lr 3e-4" …] [--at-once 2]

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
_SMALL = ["model.input_size=80", "train.epochs=3", "train.learning_rate=0.001"]
_GENTLE = ["train.learning_rate=0.0003"]
_FLIPS = ["augment.flips=both", "augment.apply_to=all"]
RECIPES = {
    "112 px, 2 epochs, lr 3e-4": [],
    "112 px, flips": _FLIPS,
    "96 px, 3 epochs": ["model.input_size=96", "train.epochs=3"],
    "80 px": _SMALL,
    "80 px, lr 3e-4": [*_SMALL, *_GENTLE],
    "80 px, lr 3e-3": [*_SMALL, "train.learning_rate=0.003"],
    "80 px, lr 3e-4, flips": [*_SMALL, *_GENTLE, *_FLIPS],
    "80 px, lr 3e-4, flips, head first": [*_SMALL, *_GENTLE, *_FLIPS, "train.head_epochs=1"],
    "80 px, last two blocks": [*_SMALL, "model.trainable_layers=last_blocks"],
    "80 px, frozen_batch_norm": [*_SMALL, "model.policy=frozen_batch_norm", "train.learning_rate=0.0001"],
    "80 px, batch_norm_free": [*_SMALL, "model.policy=batch_norm_free", "train.learning_rate=0.0001"],
    "80 px, features, 30 epochs": [*_SMALL, "model.policy=features", "train.epochs=30"],
    "64 px, 5 epochs": ["model.input_size=64", "train.epochs=5"],
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


def setting_of(recipe: str) -> dict[str, str]:
    """Where several settings of a key follow one another, the last one."""
    return dict(one.split("=") for one in RECIPES[recipe])


def row(recipe: str, nights: Sequence[Night]) -> str:
    losses, aucs, seconds = zip(*nights, strict=True)
    cells = [f"{mean(values):.3f} ({min(values):.3f} to {max(values):.3f})" for values in (losses, aucs)]
    settings = ", ".join(f"`{key}={value}`" for key, value in setting_of(recipe).items()) or "–"
    return f"| {recipe} | {cells[0]} | {cells[1]} | {mean(seconds):.0f} | {settings} |"


if __name__ == "__main__":
    main()
