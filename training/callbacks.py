"""What happens around each epoch of training: the honest monitor, the columns of the history, and the log's lines."""

import logging
import math
import time
from typing import Any

import keras
import numpy as np

from training.batchnorm import NotFinite, Recalibrator, put_back, statistics_variables
from training.evaluation import BARE_LOSS
from training.logits import batches, cross_entropies, in_batches, inference_logits
from training.progress import Progress, clock
from training.step_losses import not_finite

log = logging.getLogger(__name__)
MONITOR = "recalibrated_val_loss"


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
            except NotFinite:
                raise not_finite("BatchNorm statistics", math.nan, epoch + 1, 0) from None
        x, y = self.validation
        loss = float(np.mean(cross_entropies(in_batches(self.logits, x, self.batch_size), y)))
        if not math.isfinite(loss):
            raise not_finite(MONITOR, loss, epoch + 1, 0)
        return loss


class Stamp(keras.callbacks.Callback):
    """Adds the stage's number and the learning rate that the epoch had."""

    def __init__(self, stage: int) -> None:
        super().__init__()
        self.stage = stage

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs |= {"stage": float(self.stage), "learning_rate": float(self.model.optimizer.learning_rate)}


class Narrator(keras.callbacks.Callback):
    """One line every few seconds, and one an epoch; the same one goes through all stages."""

    def __init__(self, batch_size: int, steps: int, epochs: int) -> None:
        super().__init__()
        self.batch_size, self.steps, self.epochs = batch_size, steps, epochs
        self.progress = Progress(log, "train", epochs * steps * batch_size, "images")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch, self.begun = epoch, time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        note = f" · epoch {self.epoch + 1}/{self.epochs} step {batch + 1}/{self.steps} · loss {float(logs['loss']):.3f}"
        self.progress.update((self.epoch * self.steps + batch + 1) * self.batch_size, note)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        log.info(
            "epoch %d/%d · loss %.3f · val_loss %.3f · %s %.3f · accuracy %.3f · val_auc %.3f · %s",
            # The bare loss: class weights would make the other one incomparable.
            *(epoch + 1, self.epochs, logs[BARE_LOSS], logs["val_loss"], MONITOR, logs[MONITOR]),
            *(logs["accuracy"], logs["val_auc"], clock(time.monotonic() - self.begun)),
        )
