"""Fine-tune the pretrained network on the plan, and keep one epoch of it."""

from pathlib import Path
from tempfile import TemporaryDirectory

import keras
import numpy as np

from training.config import RunConfig
from training.determinism import make_deterministic
from training.features import fit_on_features
from training.fit import Fitted, fit, history_csv
from training.network import build_model
from training.run_folder import Run
from training.sampling import SamplingPlan
from training.steps.inputs import Labelled, labelled_split, read_plan, training_pixels

INPUTS = ("manifest.parquet", "quarantine.parquet", "sampling.json")
OUTPUTS = ("checkpoint/model.keras", "checkpoint/steps.json", "history.csv")


def work(run: Run) -> None:
    plan = read_plan(run)
    pixels = training_pixels(run, plan, np.arange(len(plan.images)))
    validation = labelled_split(run, "validation")
    make_deterministic(run.config.seed)
    model = build_model(run.config.model, len(run.config.data.classes))
    with TemporaryDirectory() as folder:
        fitted = _fit(run.config, model, plan, pixels, validation, Path(folder))
        _keep(run, fitted, Path(folder))


def _fit(
    config: RunConfig, model: keras.Model, plan: SamplingPlan, pixels: np.ndarray, validation: Labelled, folder: Path
) -> Fitted:
    if config.model.policy == "features":
        return fit_on_features(model, plan, pixels, validation, config.train, folder)
    return fit(model, plan, pixels, validation, config.train, folder, config.augment)


def _keep(run: Run, fitted: Fitted, folder: Path) -> None:
    run.store.write("checkpoint/model.keras", fitted.model_file.read_bytes())
    run.write_json("checkpoint/steps.json", {"kept_epoch": fitted.kept_epoch, "losses": fitted.step_losses})
    run.store.write("history.csv", history_csv(fitted.history))
    for path in sorted((folder / "tensorboard").rglob("events.*")):
        run.store.write(path.relative_to(folder).as_posix(), path.read_bytes())
