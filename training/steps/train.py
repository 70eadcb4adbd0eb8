"""Fine-tune the pretrained network on the plan, and keep one epoch of it; interrupted, it goes on where it was."""

from pathlib import Path
from tempfile import TemporaryDirectory

import keras
import numpy as np

from training.checkpoints import Checkpoints
from training.determinism import make_deterministic
from training.devices import names, strategy, used
from training.features import fit_on_features
from training.fit import Fitted, fit, history_csv
from training.network import build_model, to_bytes
from training.run_folder import Run, identity
from training.sampling import SamplingPlan
from training.steps.inputs import Labelled, labelled_split, read_plan, training_pixels
from training.tensorboard import write_logs

INPUTS = ("manifest.parquet", "quarantine.parquet", "sampling.json")
OUTPUTS = ("checkpoint/model.keras", "checkpoint/steps.json", "history.csv")


def work(run: Run) -> None:
    plan = read_plan(run)
    pixels = training_pixels(run, plan, np.arange(len(plan.images)))
    validation = labelled_split(run, "validation")
    make_deterministic(run.config.seed)
    with strategy(run.config.train.batch_size).scope():
        model = build_model(run.config.model, len(run.config.data.classes))
    _keep(run, model, _fit(run, model, plan, pixels, validation))


def computed_on(run: Run) -> list[str]:
    """The devices that train, for the run's provenance."""
    return names(used(run.config.train.batch_size))


def tidy(run: Run) -> None:
    """What an interrupted training would have gone on from is of no use once it is done."""
    _checkpoints(run).clear()


def _fit(run: Run, model: keras.Model, plan: SamplingPlan, pixels: np.ndarray, validation: Labelled) -> Fitted:
    config, checkpoints = run.config, _checkpoints(run)
    if config.model.policy == "features":
        return fit_on_features(model, plan, pixels, validation, config.train, checkpoints)
    return fit(model, plan, pixels, validation, config.train, config.augment, checkpoints)


def _checkpoints(run: Run) -> Checkpoints:
    return Checkpoints(run.store, identity(run, "train", INPUTS))


def _keep(run: Run, model: keras.Model, fitted: Fitted) -> None:
    run.store.write("checkpoint/model.keras", to_bytes(model))
    run.write_json("checkpoint/steps.json", {"kept_epoch": fitted.kept_epoch, "losses": fitted.step_losses})
    run.store.write("history.csv", history_csv(fitted.history))
    with TemporaryDirectory() as folder:
        write_logs(fitted.history, Path(folder))
        for path in sorted(Path(folder).rglob("events.*")):
            run.store.write(f"tensorboard/{path.relative_to(folder).as_posix()}", path.read_bytes())
