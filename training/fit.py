"""Training proper: Keras's own `fit` in one or two stages, with early stopping that lagging statistics do not fool."""

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from training.augment import WIDTH, apply, changes
from training.callbacks import Narrator, RecalibratedValidation, Stamp
from training.config import AugmentConfig, TrainConfig
from training.network import head_alone
from training.objective import bare_loss, compile_classifier, targets
from training.sampling import SamplingPlan
from training.step_losses import StepLosses

HEAD, FINE_TUNE = 1, 2
AS_THEY_ARE = AugmentConfig()


@dataclass(frozen=True)
class Fitted:
    """What `fit` leaves: the kept model's file, one row an epoch, every step's bare loss, which epoch was kept.

    Epochs are numbered from 1 on through all stages.
    """

    model_file: Path
    history: list[dict[str, float]]
    step_losses: list[list[float]]
    kept_epoch: int


@dataclass(frozen=True)
class Stage:
    """Epochs, counted from 0, that train the same layers at the same learning rate."""

    number: int
    epochs: range
    learning_rate: float


def fit(
    model: keras.Model,
    plan: SamplingPlan,
    inputs: np.ndarray,
    validation: tuple[np.ndarray, np.ndarray],
    config: TrainConfig,
    folder: Path,
    augment: AugmentConfig = AS_THEY_ARE,
) -> Fitted:
    """Train on the plan's epochs: `head_epochs` of the head alone, then those of which one is kept.

    Args:
        inputs: of shape (n, …), in the order of ``plan.images``: uint8 pixels, or whatever else the model takes.
            Only pixels can be augmented.
        validation: inputs and class numbers.
        folder: where the best model so far and TensorBoard's logs are written.

    Raises:
        Diverged: a loss became NaN or infinite.
    """
    training = _Training(model, plan, inputs, validation, config, folder, augment)
    for stage in stages(config):
        with head_alone(model) if stage.number == HEAD else nullcontext():
            training.run(stage)
    return training.kept()


def stages(config: TrainConfig) -> list[Stage]:
    """The stages that have epochs."""
    head, last = config.head_epochs, config.head_epochs + config.epochs
    both = (
        Stage(HEAD, range(head), config.head_learning_rate),
        Stage(FINE_TUNE, range(head, last), config.learning_rate),
    )
    return [stage for stage in both if stage.epochs]


def history_csv(rows: Sequence[dict[str, float]]) -> bytes:
    """`history.csv`: one line an epoch, numbers exact."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


class _Training:
    """One model on its way through the stages."""

    def __init__(
        self,
        model: keras.Model,
        plan: SamplingPlan,
        inputs: np.ndarray,
        validation: tuple[np.ndarray, np.ndarray],
        config: TrainConfig,
        folder: Path,
        augment: AugmentConfig,
    ) -> None:
        self.model, self.plan, self.inputs, self.validation = model, plan, inputs, validation
        self.config, self.folder, self.best = config, folder, folder / "best.keras"
        self.augment, self.outputs = augment, model.output_shape[-1]
        self.steps, self.rows = StepLosses(bare_loss(self.outputs)), list[dict[str, float]]()
        self.narrator = Narrator(config.batch_size, plan.steps_per_epoch, config.head_epochs + config.epochs)

    def run(self, stage: Stage) -> None:
        compile_classifier(self.model, stage.learning_rate, self.steps.metric)
        history = self.model.fit(
            _epochs(self.plan, self.inputs, self.outputs, self.augment, stage.epochs),
            class_weight=self.plan.class_weights,
            steps_per_epoch=self.plan.steps_per_epoch,
            initial_epoch=stage.epochs.start,
            epochs=stage.epochs.stop,
            validation_data=_labelled(self.validation, self.outputs, self.config.batch_size),
            callbacks=list(self._callbacks(stage)),
            shuffle=False,  # the plan has shuffled already
            verbose=0,
        )
        self.rows += _rows(history.history, stage.epochs.start + 1)

    def kept(self) -> Fitted:
        """The best epoch of the last stage, or simply the last."""
        if self.config.keep_epoch == "best":
            tuned = [row for row in self.rows if row["stage"] == FINE_TUNE]
            kept = min(tuned, key=lambda row: row[self.config.monitor])
            return Fitted(self.best, self.rows, self.steps.epochs, int(kept["epoch"]))
        last = self.best.with_name("last.keras")
        self.model.save(last)
        return Fitted(last, self.rows, self.steps.epochs, len(self.rows))

    def _callbacks(self, stage: Stage) -> Iterator[keras.callbacks.Callback]:
        rows = self.inputs[self.plan.take(self.config.monitor_samples, "monitor")]
        yield self.steps
        yield Stamp(stage.number)
        yield RecalibratedValidation(self.model, rows, self.validation, self.config.batch_size)
        if stage.number == FINE_TUNE:
            yield from _watching(self.config, self.best)
        yield keras.callbacks.TensorBoard(str(self.folder / "tensorboard"), write_graph=False)
        yield self.narrator


def _watching(config: TrainConfig, best: Path) -> Iterator[keras.callbacks.Callback]:
    """What looks at the monitor: it keeps the best epoch, slows learning down and stops it."""
    callbacks, monitor = keras.callbacks, config.monitor
    yield callbacks.EarlyStopping(monitor=monitor, mode="min", patience=config.early_stopping_patience)
    yield callbacks.ModelCheckpoint(str(best), monitor=monitor, mode="min", save_best_only=True)
    if config.reduce_lr_patience is not None:
        patience = config.reduce_lr_patience
        yield callbacks.ReduceLROnPlateau(monitor=monitor, mode="min", factor=0.1, patience=patience, min_delta=1e-4)


def _epochs(
    plan: SamplingPlan, inputs: np.ndarray, outputs: int, augment: AugmentConfig, epochs: range
) -> tf.data.Dataset:
    """Batches of these epochs, one after the other, in the plan's order."""
    labels = targets(np.asarray(plan.labels), outputs)
    dataset = _batches(plan, epochs, inputs, labels)
    if augment.enabled:
        done = _changes(plan, augment, inputs.shape[1], epochs)
        dataset = tf.data.Dataset.zip(dataset, done).map(lambda pair, changed: (apply(pair[0], changed), pair[1]))
    return dataset.prefetch(2)


def _batches(plan: SamplingPlan, epochs: range, *arrays: np.ndarray) -> tf.data.Dataset:
    """The same rows of each array, which are in the order of ``plan.images``."""

    def rows() -> Iterator[tuple[np.ndarray, ...]]:
        for number in epochs:
            for batch in np.split(plan.epoch(number), plan.steps_per_epoch):
                yield tuple(array[batch] for array in arrays)

    signature = tuple(tf.TensorSpec((plan.batch_size, *array.shape[1:]), array.dtype) for array in arrays)
    return tf.data.Dataset.from_generator(rows, output_signature=signature)


def _changes(plan: SamplingPlan, augment: AugmentConfig, side: int, epochs: range) -> tf.data.Dataset:
    """How augmentation changes the rows of each batch."""

    def rows() -> Iterator[np.ndarray]:
        for number in epochs:
            yield from np.split(changes(plan, augment, side, number), plan.steps_per_epoch)

    return tf.data.Dataset.from_generator(rows, output_signature=tf.TensorSpec((plan.batch_size, WIDTH), tf.float32))


def _labelled(data: tuple[np.ndarray, np.ndarray], outputs: int, batch_size: int) -> tf.data.Dataset:
    inputs, labels = data
    return tf.data.Dataset.from_tensor_slices((inputs, targets(labels, outputs))).batch(batch_size)


def _rows(history: dict[str, list[float]], first: int) -> list[dict[str, float]]:
    names = list(history)
    return [
        {"epoch": epoch, **dict(zip(names, map(float, values), strict=True))}
        for epoch, values in enumerate(zip(*history.values(), strict=True), start=first)
    ]
