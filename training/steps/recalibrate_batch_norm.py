"""Replace BatchNorm's lagging statistics by pooled ones; what comes out is what will be served."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from training import network
from training.batchnorm import BatchNormReport, NotFinite, Recalibrator
from training.determinism import make_deterministic
from training.errors import Diverged
from training.evaluation import REMEDIES
from training.gap import statistics_of
from training.logits import batches
from training.progress import followed
from training.run_folder import Run
from training.sampling import SamplingPlan
from training.steps.inputs import labelled_split, read_plan, training_pixels

log = logging.getLogger(__name__)
INPUTS = ("manifest.parquet", "quarantine.parquet", "sampling.json", "checkpoint/model.keras")
OUTPUTS = ("recalibrated/model.keras", "batch_norm.json")
DISABLED = "recalibrate.enabled is false; the statistics were measured and left as training left them"


def work(run: Run) -> None:
    make_deterministic(run.config.seed)
    checkpoint = run.store.read("checkpoint/model.keras")
    model = load(run, checkpoint)
    report = _report(run, model)
    # A model that was not changed is passed on to the byte.
    run.store.write("recalibrated/model.keras", network.to_bytes(model) if report.applied else checkpoint)
    run.write_json("batch_norm.json", report.tree())
    _tell(report)


def load(run: Run, content: bytes) -> keras.Model:
    """A run's model with the policy's layers frozen, as it was while training."""
    model = network.from_bytes(content)
    network.apply_policy(model, run.config.model)
    return model


def pooled_statistics(run: Run, model: keras.Model) -> dict[str, np.ndarray]:
    """The statistics that recalibration finds, whether or not they are served; they are left in the model."""
    with _divergence():
        Recalibrator(model).recalibrate(_Images(run), mode=run.config.recalibrate.mode)
    return statistics_of(model)


def _report(run: Run, model: keras.Model) -> BatchNormReport:
    """Recalibrate the model on the images its config names, or only measure it."""
    images, settings, recalibrator = _Images(run), run.config.recalibrate, Recalibrator(model)
    with _divergence():
        if not settings.enabled:
            report = recalibrator.inspect(images, DISABLED)
        else:
            validation = labelled_split(run, "validation")
            report = recalibrator.recalibrate(images, mode=settings.mode, validation=validation)
        return recalibrator.with_remaining(report, images)


@contextmanager
def _divergence() -> Iterator[None]:
    try:
        yield
    except NotFinite as error:
        raise Diverged(str(error), cause="non_finite", remedy=REMEDIES["non_finite"]) from error


class _Images:
    """The images to recalibrate on, batch by batch, as often as wanted."""

    def __init__(self, run: Run) -> None:
        plan = read_plan(run)
        self.pixels = training_pixels(run, plan, _rows(run, plan))
        self.size = run.config.train.batch_size

    def __iter__(self) -> Iterator[Any]:
        total = -(-len(self.pixels) // self.size)
        return followed(batches(self.pixels, self.size), log, "recalibrate", total, "batches")


def _tell(report: BatchNormReport) -> None:
    log.info("%s: %s (%d images)", "recalibrated" if report.applied else "unchanged", report.reason, report.samples)
    if report.layers:
        drift = max(layer.worst_mean_drift for layer in report.layers)
        remaining = max(layer.remaining_worst_mean_drift or 0 for layer in report.layers)
        log.info("largest drift of a channel's mean: %.3g sigma before, %.3g after", drift, remaining)


def _rows(run: Run, plan: SamplingPlan) -> np.ndarray:
    settings = run.config.recalibrate
    if settings.distribution == "natural":
        return plan.natural(settings.samples, "recalibrate")
    return plan.take(settings.samples, "recalibrate")
