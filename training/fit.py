"""Training proper: Keras's own `fit`, with early stopping that lagging statistics do not fool."""

import csv
import io
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from training.batchnorm import Recalibrator, put_back, statistics_variables
from training.config import TrainConfig
from training.errors import Diverged
from training.evaluation import MEANINGS, REMEDIES
from training.logits import batches, cross_entropies, in_batches, inference_logits
from training.progress import Progress, clock
from training.sampling import SamplingPlan

log = logging.getLogger(__name__)
MONITOR = "recalibrated_val_loss"
# Built in, computed from logits and never weighted: the loss every other one is compared with.
BARE_LOSS = "cross_entropy"


@dataclass(frozen=True)
class Fitted:
    """What `fit` leaves: the kept model's file, one row an epoch, every step's bare loss, which epoch was kept."""

    model_file: Path
    history: list[dict[str, float]]
    step_losses: list[list[float]]
    kept_epoch: int


def fit(
    model: keras.Model,
    plan: SamplingPlan,
    pixels: np.ndarray,
    validation: tuple[np.ndarray, np.ndarray],
    config: TrainConfig,
    folder: Path,
) -> Fitted:
    """Train on the plan's epochs.

    Args:
        pixels: uint8 (n, size, size, 3) in the order of ``plan.images``.
        validation: pixels and class numbers.
        folder: where the best model so far and TensorBoard's logs are written.

    Raises:
        Diverged: a loss became NaN or infinite.
    """
    steps = StepLosses(_compile(model, config.learning_rate))
    best = folder / "best.keras"
    callbacks = [steps, *_callbacks(model, plan, pixels, validation, config, best, folder)]
    history = model.fit(
        _epochs(plan, pixels, config.epochs),
        steps_per_epoch=plan.steps_per_epoch,
        epochs=config.epochs,
        validation_data=_labelled(validation, config.batch_size),
        callbacks=callbacks,
        shuffle=False,  # the plan has shuffled already
        verbose=0,
    )
    rows = _rows(history.history)
    return _kept(model, rows, steps.epochs, config, best)


def history_csv(rows: Sequence[dict[str, float]]) -> bytes:
    """`history.csv`: one line an epoch, numbers exact."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


class StepLosses(keras.callbacks.Callback):
    """Keeps every step's bare loss, and stops at the first that is not a finite number."""

    def __init__(self, metric: keras.metrics.Metric) -> None:
        super().__init__()
        self.metric = metric
        self.epochs: list[list[float]] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epochs.append([])

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.metric.reset_state()  # so that its value is this step's alone

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        loss = float(logs[BARE_LOSS])
        if not math.isfinite(loss):
            raise _not_finite("training loss", loss, len(self.epochs), batch + 1)
        self.epochs[-1].append(loss)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs[BARE_LOSS] = float(np.mean(self.epochs[-1]))


class RecalibratedValidation(keras.callbacks.Callback):
    """Adds the validation loss as it would be after recalibration; the statistics are put back."""

    def __init__(
        self, model: keras.Model, rows: np.ndarray, validation: tuple[np.ndarray, np.ndarray], batch_size: int
    ) -> None:
        super().__init__()
        self.recalibrator, self.logits = Recalibrator(model), inference_logits(model)
        self.rows, self.validation, self.batch_size = rows, validation, batch_size

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        variables = statistics_variables(self.recalibrator.written)
        before = [variable.numpy() for variable in variables]
        try:
            logs[MONITOR] = self._loss(epoch)
        finally:
            put_back(variables, before)

    def _loss(self, epoch: int) -> float:
        if self.recalibrator.written:
            try:
                self.recalibrator.recalibrate(batches(self.rows, self.batch_size))
            except ValueError:
                raise _not_finite("BatchNorm statistics", math.nan, epoch + 1, 0) from None
        x, y = self.validation
        loss = float(np.mean(cross_entropies(in_batches(self.logits, x, self.batch_size), y)))
        if not math.isfinite(loss):
            raise _not_finite(MONITOR, loss, epoch + 1, 0)
        return loss


class Narrator(keras.callbacks.Callback):
    """One line every few seconds, and one an epoch."""

    def __init__(self, batch_size: int, steps: int, epochs: int) -> None:
        super().__init__()
        self.batch_size, self.steps, self.epochs = batch_size, steps, epochs

    def on_train_begin(self, logs: Any = None) -> None:
        self.progress = Progress(log, "train", self.epochs * self.steps * self.batch_size, "images")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch, self.begun = epoch, time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        note = f" · epoch {self.epoch + 1}/{self.epochs} step {batch + 1}/{self.steps} · loss {float(logs['loss']):.3f}"
        self.progress.update((self.epoch * self.steps + batch + 1) * self.batch_size, note)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        log.info(
            "epoch %d/%d · loss %.3f · val_loss %.3f · %s %.3f · accuracy %.3f · val_auc %.3f · %s",
            *(epoch + 1, self.epochs, logs["loss"], logs["val_loss"], MONITOR, logs[MONITOR]),
            *(logs["accuracy"], logs["val_auc"], clock(time.monotonic() - self.begun)),
        )


def _compile(model: keras.Model, learning_rate: float) -> keras.metrics.Metric:
    """Compile as TensorFlow's tutorial on imbalanced data does; returns the metric of the bare loss."""
    metrics = keras.metrics
    bare = metrics.BinaryCrossentropy(name=BARE_LOSS)
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=keras.losses.BinaryCrossentropy(),
        metrics=[
            bare,
            metrics.TruePositives(name="tp"),
            metrics.FalsePositives(name="fp"),
            metrics.TrueNegatives(name="tn"),
            metrics.FalseNegatives(name="fn"),
            metrics.BinaryAccuracy(name="accuracy"),
            metrics.Precision(name="precision"),
            metrics.Recall(name="recall"),
            metrics.AUC(name="auc"),
            metrics.AUC(name="prc", curve="PR"),
        ],
    )
    return bare


def _callbacks(
    model: keras.Model,
    plan: SamplingPlan,
    pixels: np.ndarray,
    validation: tuple[np.ndarray, np.ndarray],
    config: TrainConfig,
    best: Path,
    folder: Path,
) -> Iterator[keras.callbacks.Callback]:
    callbacks = keras.callbacks
    rows = pixels[plan.take(config.monitor_samples, "monitor")]
    yield RecalibratedValidation(model, rows, validation, config.batch_size)
    yield callbacks.EarlyStopping(monitor=config.monitor, mode="min", patience=config.early_stopping_patience)
    yield callbacks.ModelCheckpoint(str(best), monitor=config.monitor, mode="min", save_best_only=True)
    if config.reduce_lr_patience is not None:
        yield callbacks.ReduceLROnPlateau(
            monitor=config.monitor, mode="min", factor=0.1, patience=config.reduce_lr_patience, min_delta=1e-4
        )
    yield callbacks.TensorBoard(str(folder / "tensorboard"), write_graph=False)
    yield Narrator(config.batch_size, plan.steps_per_epoch, config.epochs)


def _epochs(plan: SamplingPlan, pixels: np.ndarray, epochs: int) -> tf.data.Dataset:
    """Batches of all epochs, one after the other, in the plan's order."""
    labels = np.asarray(plan.labels, np.float32)[:, None]

    def rows() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for number in range(epochs):
            for batch in np.split(plan.epoch(number), plan.steps_per_epoch):
                yield pixels[batch], labels[batch]

    signature = (
        tf.TensorSpec((plan.batch_size, *pixels.shape[1:]), tf.uint8),
        tf.TensorSpec((plan.batch_size, 1), tf.float32),
    )
    return tf.data.Dataset.from_generator(rows, output_signature=signature).prefetch(2)


def _labelled(data: tuple[np.ndarray, np.ndarray], batch_size: int) -> tf.data.Dataset:
    pixels, labels = data
    return tf.data.Dataset.from_tensor_slices((pixels, labels.astype(np.float32)[:, None])).batch(batch_size)


def _rows(history: dict[str, list[float]]) -> list[dict[str, float]]:
    names = list(history)
    return [
        {"epoch": epoch, **dict(zip(names, map(float, values), strict=True))}
        for epoch, values in enumerate(zip(*history.values(), strict=True), start=1)
    ]


def _kept(
    model: keras.Model, rows: list[dict[str, float]], steps: list[list[float]], config: TrainConfig, best: Path
) -> Fitted:
    if config.keep_epoch == "best":
        kept = min(rows, key=lambda row: row[config.monitor])
        return Fitted(best, rows, steps, int(kept["epoch"]))
    last = best.with_name("last.keras")
    model.save(last)
    return Fitted(last, rows, steps, len(rows))


def _not_finite(what: str, value: float, epoch: int, step: int) -> Diverged:
    where = f"epoch {epoch}" + (f", step {step}" if step else "")
    message = f"{what} is {value} in {where}: {MEANINGS['non_finite']}."
    return Diverged(message, cause="non_finite", remedy=REMEDIES["non_finite"])
