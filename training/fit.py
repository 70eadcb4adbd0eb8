"""Training proper: Keras's own `fit` in one or two stages, with early stopping that lagging statistics do not fool."""

import csv
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice

import keras
import numpy as np
import tensorflow as tf

from training.augment import WIDTH, apply, changes
from training.batchnorm import fused_training
from training.callbacks import Chronicle, Keeper, Narrator, RecalibratedValidation, Stamp
from training.checkpoints import Checkpoints
from training.config import AugmentConfig, TrainConfig
from training.depthwise import roomy_depthwise
from training.devices import draw_apart, together
from training.network import head_alone
from training.objective import bare_loss, compile_classifier, targets
from training.rows import Array
from training.sampling import SamplingPlan
from training.standing import Standing, Variables, assign, from_checkpoint, same_machine
from training.step_losses import StepLosses

log = logging.getLogger(__name__)
HEAD, FINE_TUNE = 1, 2
AS_THEY_ARE = AugmentConfig()
# At least so many are validated at once: the few that features take would be over sooner than the call.
_BYTES = 2**19


@dataclass(frozen=True)
class Fitted:
    """What `fit` leaves besides the model: one row an epoch, every step's bare loss, which epoch was kept.

    Epochs are numbered from 1 on through all stages.
    """

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
    inputs: Array,
    validation: tuple[Array, np.ndarray],
    config: TrainConfig,
    augment: AugmentConfig = AS_THEY_ARE,
    checkpoints: Checkpoints | None = None,
    steps_per_execution: int = 1,
) -> Fitted:
    """Train on the plan's epochs: `head_epochs` of the head alone, then those of which one is kept.

    Args:
        model: as built, and trained on all devices of the strategy in whose scope it was; afterwards it has the
            values that it had after the kept epoch.
        inputs: of shape (n, …), in the order of ``plan.images``: uint8 pixels, or whatever else the model takes.
            Only pixels can be augmented.
        validation: inputs and class numbers.
        checkpoints: where it goes on from, if an earlier call with the same arguments was interrupted: on the same
            machine every number comes out as if it had not been, to the bit.
        steps_per_execution: of Keras: what is quicker than the call of it is better called for many steps at once. One
            that does not divide the plan's steps would go on into the next epoch. Losses are looked at, and a line or
            a checkpoint is written, in between.

    Raises:
        Diverged: a loss became NaN or infinite.
    """
    with together(model), fused_training(model), roomy_depthwise(model):
        training = _Training(model, plan, inputs, validation, config, augment, checkpoints, steps_per_execution)
        for stage in training.left():
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
        inputs: Array,
        validation: tuple[Array, np.ndarray],
        config: TrainConfig,
        augment: AugmentConfig,
        checkpoints: Checkpoints | None,
        steps_per_execution: int,
    ) -> None:
        self.model, self.plan, self.inputs, self.validation = model, plan, inputs, validation
        self.config, self.augment, self.outputs = config, augment, model.output_shape[-1]
        self.checkpoints, self.steps_per_execution = checkpoints, steps_per_execution
        self.steps = StepLosses(bare_loss(self.outputs), steps_per_execution)
        self.standing, self.saved = self._left_off()
        self.chronicle = Chronicle(self.standing, self.saved.best, config.monitor)
        self.steps.go_on(self.standing.step_losses, within=self.standing.step > 0)
        done = self.standing.epoch, self.standing.step
        self.narrator = Narrator(config.batch_size, plan.steps_per_epoch, config.head_epochs + config.epochs, done)

    def _left_off(self) -> tuple[Standing, Variables]:
        """Where an interrupted training stood; its model is as it was then."""
        found = self.checkpoints.newest() if self.checkpoints else None
        if found is None:
            return Standing(), Variables()
        standing, saved = from_checkpoint(found)
        assign(self.model.variables, saved.model)
        epochs = self.config.head_epochs + self.config.epochs
        log.info("going on from epoch %d/%d, after %d of its steps", standing.epoch + 1, epochs, standing.step)
        if not same_machine(found):
            log.warning("another machine began this, or other devices: the result will not be the same to the bit")
        return standing, saved

    def left(self) -> list[Stage]:
        """The stages that are not over."""
        return [stage for stage in stages(self.config) if stage.number >= self.standing.stage]

    def run(self, stage: Stage) -> None:
        compile_classifier(self.model, stage.learning_rate, self.steps.metric, self.steps_per_execution)
        self._build()
        if self.standing.stage == stage.number:
            assign(self.model.optimizer.variables, self.saved.optimizer)
        self.standing.stage, self.chronicle.choosing = stage.number, stage.number == FINE_TUNE
        for epochs, done in self.standing.parts(stage.epochs):
            self._fit(stage, epochs, done)

    def _fit(self, stage: Stage, epochs: range, done: int) -> None:
        draw_apart(self.model)
        self.model.fit(
            _epochs(self.plan, self.inputs, self.outputs, self.augment, epochs, done),
            class_weight=self.plan.class_weights,
            steps_per_epoch=self.plan.steps_per_epoch - done,
            initial_epoch=epochs.start,
            epochs=epochs.stop,
            validation_data=_labelled(self.validation, self.outputs, self.config.batch_size),
            callbacks=list(self._callbacks(stage, done)),
            shuffle=False,  # the plan has shuffled already
            verbose=0,
        )

    def _build(self) -> None:
        """Keras would do so at the first step: too late for values to be put in, and then it traces the step twice."""
        self.model.optimizer.build(self.model.trainable_variables)
        some = tf.zeros((1, self.outputs))
        self.model.compute_metrics(None, some, some)

    def kept(self) -> Fitted:
        """The best epoch of the last stage, or simply the last."""
        kept = len(self.standing.rows)
        if self.config.keep_epoch == "best":
            assign(self.model.variables, self.chronicle.best)
            kept = self.standing.best.epoch
        return Fitted(self.standing.rows, self.standing.step_losses, kept)

    def _callbacks(self, stage: Stage, done: int) -> Iterator[keras.callbacks.Callback]:
        rows = self.inputs[self.plan.take(self.config.monitor_samples, "monitor")]
        watchers = list(_watchers(self.config)) if stage.number == FINE_TUNE else []
        yield self.steps
        yield Stamp(stage.number)
        yield RecalibratedValidation(self.model, rows, self.validation, self.config.batch_size)
        yield from watchers
        yield self.chronicle
        yield self.narrator
        seconds, steps = self.config.checkpoint_seconds, self.plan.steps_per_epoch
        yield Keeper(self.chronicle, watchers, self.checkpoints, seconds, steps, done, self.saved.metrics)


def _watchers(config: TrainConfig) -> Iterator[keras.callbacks.Callback]:
    """What looks at the monitor: it stops learning or slows it down."""
    callbacks, monitor = keras.callbacks, config.monitor
    yield callbacks.EarlyStopping(monitor=monitor, mode="min", patience=config.early_stopping_patience)
    if config.reduce_lr_patience is not None:
        patience = config.reduce_lr_patience
        yield callbacks.ReduceLROnPlateau(monitor=monitor, mode="min", factor=0.1, patience=patience, min_delta=1e-4)


def _epochs(
    plan: SamplingPlan, inputs: Array, outputs: int, augment: AugmentConfig, epochs: range, done: int = 0
) -> tf.data.Dataset:
    """Batches of these epochs, one after the other, in the plan's order; the first `done` are left out."""
    labels = targets(np.asarray(plan.labels), outputs)
    dataset = _batches(plan, epochs, done, inputs, labels)
    if augment.enabled:
        drawn = _changes(plan, augment, inputs.shape[1], epochs, done)
        dataset = tf.data.Dataset.zip(dataset, drawn).map(lambda pair, changed: (apply(pair[0], changed), pair[1]))
    return _untuned(dataset.prefetch(2))


def _batches(plan: SamplingPlan, epochs: range, done: int, inputs: Array, labels: np.ndarray) -> tf.data.Dataset:
    """Rows of both, which are in the order of ``plan.images``."""
    if isinstance(inputs, np.ndarray):
        return _gathered(plan, epochs, done, inputs, labels)

    def rows() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for batch in _drawn(plan, plan.epoch, epochs, done):
            yield inputs[batch], labels[batch]

    signature = tuple(tf.TensorSpec((plan.batch_size, *array.shape[1:]), array.dtype) for array in (inputs, labels))
    return tf.data.Dataset.from_generator(rows, output_signature=signature)


def _gathered(plan: SamplingPlan, epochs: range, done: int, *arrays: np.ndarray) -> tf.data.Dataset:
    """`_batches` of what is in memory: to fetch one from Python takes half as long as the step of a head."""
    order = np.stack(list(_drawn(plan, plan.epoch, epochs, done)))
    with tf.device("CPU"):  # from a GPU, each batch would be fetched
        tensors = [tf.convert_to_tensor(array) for array in arrays]
    batches = tf.data.Dataset.from_tensor_slices(order)
    return batches.map(lambda batch: tuple(tf.gather(tensor, batch) for tensor in tensors))


def _changes(plan: SamplingPlan, augment: AugmentConfig, side: int, epochs: range, done: int) -> tf.data.Dataset:
    """How augmentation changes the rows of each batch."""
    return tf.data.Dataset.from_generator(
        lambda: _drawn(plan, partial(changes, plan, augment, side), epochs, done),
        output_signature=tf.TensorSpec((plan.batch_size, WIDTH), tf.float32),
    )


def _drawn(plan: SamplingPlan, of_epoch: Callable[[int], np.ndarray], epochs: range, done: int) -> Iterator[np.ndarray]:
    """What each batch has of what its epoch has."""
    drawn = (batch for number in epochs for batch in np.split(of_epoch(number), plan.steps_per_epoch))
    return islice(drawn, done, None)


def _labelled(data: tuple[Array, np.ndarray], outputs: int, batch_size: int) -> tf.data.Dataset:
    inputs, labels = data[0], targets(data[1], outputs)
    # Keras adds the devices' parts of the first batch up to see what data look like, so they must be equal.
    devices = tf.distribute.get_strategy().num_replicas_in_sync
    even = min(max(batch_size, _BYTES // inputs[:1].nbytes), len(inputs)) // devices * devices
    starts = range(0, len(inputs), even)
    signature = tuple(tf.TensorSpec((None, *array.shape[1:]), array.dtype) for array in (inputs, labels))
    dataset = tf.data.Dataset.from_generator(
        lambda: ((inputs[start : start + even], labels[start : start + even]) for start in starts),
        output_signature=signature,
    )
    return _untuned(dataset.apply(tf.data.experimental.assert_cardinality(len(starts))))


def _untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Without the thread that tunes it, for which the end of each pass waits: up to as long again as the pass took."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
