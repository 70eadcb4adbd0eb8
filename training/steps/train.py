"""Fine-tune the pretrained network on the plan, and keep one epoch of it; interrupted, it goes on where it was."""

from pathlib import Path
from tempfile import TemporaryDirectory

import keras
import numpy as np

from training.checkpoints import Checkpoints
from training.determinism import make_deterministic
from training.devices import names, strategy, used
from training.features import divided, features, fit_on_features
from training.fit import Fitted, fit, history_csv
from training.network import build_model, to_bytes
from training.run_folder import Run, identity
from training.sampling import SamplingPlan
from training.shards import Part
from training.steps import sharding
from training.steps.inputs import labelled_split, read_plan, split_labels, split_pixels, training_pixels
from training.steps.sharding import Found, together
from training.tensorboard import write_logs

INPUTS = ("manifest.parquet", "quarantine.parquet", "sampling.json")
OUTPUTS = ("checkpoint/model.keras", "checkpoint/steps.json", "history.csv")


def shard(run: Run, part: Part) -> Found:
    """Features of a part of the images; only the policy that trains on them has any use for shards."""
    return _features(run, _model(run), part)


def work(run: Run) -> None:
    plan = read_plan(run)
    _keep(run, *(_on_features if run.config.model.policy == "features" else _on_pixels)(run, plan))


def computed_on(run: Run) -> list[str]:
    """The devices that train, for the run's provenance."""
    return names(used(run.config.train.batch_size))


def tidy(run: Run) -> None:
    """What an interrupted training would have gone on from is of no use once it is done."""
    _checkpoints(run).clear()


def _model(run: Run) -> keras.Model:
    make_deterministic(run.config.seed)
    with strategy(run.config.train.batch_size).scope():
        return build_model(run.config.model, len(run.config.data.classes))


def _on_pixels(run: Run, plan: SamplingPlan) -> tuple[keras.Model, Fitted]:
    pixels = training_pixels(run, plan, np.arange(len(plan.images)))
    validation = labelled_split(run, "validation")
    model = _model(run)
    return model, fit(model, plan, pixels, validation, run.config.train, run.config.augment, _checkpoints(run))


def _on_features(run: Run, plan: SamplingPlan) -> tuple[keras.Model, Fitted]:
    model = _model(run)
    found = together(sharding.found(run, "train", INPUTS, lambda run, part: _features(run, model, part)))
    validation = found["validation"], split_labels(run, "validation")
    return model, fit_on_features(model, plan, found["train"], validation, run.config.train, _checkpoints(run))


def _features(run: Run, model: keras.Model, part: Part) -> Found:
    base, plan, size = divided(model)[0], read_plan(run), run.config.train.batch_size
    rows = np.arange(len(plan.images)), np.arange(len(split_labels(run, "validation")))
    train, validation = (some[part.rows(len(some), size)] for some in rows)
    pixels = {
        "train": training_pixels(run, plan, train),
        "validation": split_pixels(run, "validation", validation),
    }
    return {name: features(base, images, size) for name, images in pixels.items() if len(images)}


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
