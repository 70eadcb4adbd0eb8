"""Fine-tune the pretrained network on the plan, and keep one epoch of it; interrupted, it goes on where it was."""

import logging
from pathlib import Path
from tempfile import TemporaryDirectory

import keras
import numpy as np
import pandas as pd

from training.checkpoints import Checkpoints
from training.config import TrainConfig
from training.determinism import make_deterministic
from training.devices import names, strategy, used
from training.features import divided, fit_on_features, kept_features
from training.fit import Fitted, fit, history_csv
from training.network import build_model, to_bytes
from training.rows import Rows
from training.run_folder import Run, identity
from training.sampling import SamplingPlan
from training.shards import WHOLE, Part
from training.steps import sharding
from training.steps.inputs import (
    computed,
    labelled_split,
    pixels,
    read_plan,
    split_images,
    split_labels,
    training_images,
)
from training.steps.sharding import Found
from training.store import open_store
from training.tensorboard import write_logs
from training.warm_start import WarmStart, decide, go_on, shortened

log = logging.getLogger(__name__)

INPUTS = ("manifest.parquet", "quarantine.parquet", "sampling.json")
_START = "warm_start.json"
OUTPUTS = ("checkpoint/model.keras", "checkpoint/steps.json", "history.csv")


def shard(run: Run, part: Part) -> Found:
    """How many features of a part of the images were seen to; only the policy that trains on them has use for shards.

    They themselves lie where all features lie.
    """
    return {name: np.array([len(rows)]) for name, rows in _features(run, _model(run), part).items()}


def work(run: Run) -> None:
    plan, start = read_plan(run), _start(run)
    log.info(
        "training from %s: %s", f"champion {start.champion}" if start.champion else "pretrained weights", start.reason
    )
    model = _model(run)
    warm = start.champion is not None and go_on(model, open_store(run.config.store.champion), start.champion)
    if not warm:
        start = start.model_copy(update={"champion": None, "nights": 0})
    config = shortened(run.config.train) if warm else run.config.train
    train = _on_features if run.config.model.policy == "features" else _on_pixels
    _keep(run, model, train(run, plan, model, config), start)


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


def _start(run: Run) -> WarmStart:
    """Decided once a run, so that one that was interrupted goes on with the same, whoever is champion by then."""
    if not run.store.exists(_START):
        run.write_json(_START, decide(run.config, run.store.uri().rpartition("/")[2]).tree())
    return WarmStart.model_validate(run.read_json(_START))


def _on_pixels(run: Run, plan: SamplingPlan, model: keras.Model, config: TrainConfig) -> Fitted:
    images = pixels(run, training_images(run, plan))
    validation = labelled_split(run, "validation")
    return fit(model, plan, images, validation, config, run.config.augment, _checkpoints(run))


def _on_features(run: Run, plan: SamplingPlan, model: keras.Model, config: TrainConfig) -> Fitted:
    if run.config.scale.shards > 1:
        for _ in sharding.found(run, "train", INPUTS, shard):
            pass  # what no shard has seen to is seen to now
    found = _features(run, model, WHOLE)
    validation = found["validation"], split_labels(run, "validation")
    return fit_on_features(model, plan, found["train"], validation, config, _checkpoints(run))


def _features(run: Run, model: keras.Model, part: Part) -> dict[str, Rows]:
    """Of a part of the images; only those that no night has seen are computed."""
    plan, size = read_plan(run), run.config.train.batch_size
    tables = {"train": training_images(run, plan), "validation": split_images(run, "validation")}
    own = {name: table.iloc[part.rows(len(table), size)] for name, table in tables.items()}
    # All at once, since what is kept is checked, and a network made ready, each time.
    found = _features_of(run, divided(model)[0], pd.concat(own.values()))
    places = np.split(np.arange(len(found)), np.cumsum([len(table) for table in own.values()])[:-1])
    return {name: found.take(rows) for name, rows in zip(own, places, strict=True) if len(rows)}


def _features_of(run: Run, base: keras.Model, table: pd.DataFrame) -> Rows:
    by_content = table.drop_duplicates("sha256").set_index("sha256", drop=False)
    images = list(table["sha256"])
    return kept_features(base, images, lambda missing: pixels(run, by_content.loc[missing]), *computed(run))


def _checkpoints(run: Run) -> Checkpoints:
    return Checkpoints(run.store, identity(run, "train", (*INPUTS, _START)))


def _keep(run: Run, model: keras.Model, fitted: Fitted, start: WarmStart) -> None:
    run.store.write("checkpoint/model.keras", to_bytes(model))
    steps = {"kept_epoch": fitted.kept_epoch, "losses": fitted.step_losses, "warm_start": start.tree()}
    run.write_json("checkpoint/steps.json", steps)
    run.store.write("history.csv", history_csv(fitted.history))
    with TemporaryDirectory() as folder:
        write_logs(fitted.history, Path(folder))
        for path in sorted(Path(folder).rglob("events.*")):
            run.store.write(f"tensorboard/{path.relative_to(folder).as_posix()}", path.read_bytes())
