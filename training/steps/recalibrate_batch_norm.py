"""Replace BatchNorm's lagging statistics by pooled ones; what comes out is what will be served."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from training import network
from training.batchnorm import BatchMoments, BatchNormReport, NotFinite, Recalibrator, learning_layers
from training.determinism import make_deterministic
from training.errors import Diverged
from training.evaluation import REMEDIES
from training.gap import statistics_of
from training.logits import batches
from training.progress import followed
from training.run_folder import Run
from training.sampling import SamplingPlan
from training.shards import WHOLE, Part, spans
from training.steps import sharding
from training.steps.inputs import labelled_split, read_plan, training_pixels
from training.steps.sharding import Found

log = logging.getLogger(__name__)
INPUTS = ("manifest.parquet", "quarantine.parquet", "sampling.json", "checkpoint/model.keras")
OUTPUTS = ("recalibrated/model.keras", "batch_norm.json")
DISABLED = "recalibrate.enabled is false; the statistics were measured and left as training left them"


def shard(run: Run, part: Part) -> Found:
    """What BatchNorm's layers see in a part of the batches."""
    make_deterministic(run.config.seed)
    images = _Images(run, part)
    if not len(images.pixels):
        return {}
    model = load(run, run.store.read("checkpoint/model.keras"))
    each = list(Recalibrator(model).moments(images))
    return {"inputs": np.array([batch.inputs for batch in each]), "values": np.stack([batch.values for batch in each])}


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
    if learning_layers(model):
        with _divergence():
            Recalibrator(model).recalibrate(_Images(run), mode=run.config.recalibrate.mode)
    return statistics_of(model)


def _report(run: Run, model: keras.Model) -> BatchNormReport:
    """Recalibrate the model on the images its config names, or only measure it."""
    images, settings, recalibrator = _Images(run), run.config.recalibrate, Recalibrator(model)
    with _divergence():
        if not settings.enabled:
            report = recalibrator.inspect(images, DISABLED, _moments(run))
        else:
            validation = labelled_split(run, "validation")
            moments = _moments(run)
            report = recalibrator.recalibrate(images, mode=settings.mode, validation=validation, moments=moments)
        return recalibrator.with_remaining(report, images)


def _moments(run: Run) -> Iterator[BatchMoments] | None:
    """Those that shards have found; the self-consistent mode goes through all images again and again by itself."""
    if run.config.scale.shards == 1 or run.config.recalibrate.mode == "self_consistent":
        return None
    shards = sharding.found(run, "recalibrate_batch_norm", INPUTS, shard)
    return (
        BatchMoments(int(inputs), values)
        for found in shards
        for inputs, values in zip(found.get("inputs", ()), found.get("values", ()), strict=True)
    )


@contextmanager
def _divergence() -> Iterator[None]:
    try:
        yield
    except NotFinite as error:
        raise Diverged(str(error), cause="non_finite", remedy=REMEDIES["non_finite"]) from error


class _Images:
    """The images to recalibrate on, or a part of them, batch by batch, as often as wanted."""

    def __init__(self, run: Run, part: Part = WHOLE) -> None:
        self.size = run.config.train.batch_size
        plan = read_plan(run)
        rows = _rows(run, plan)
        self.pixels = training_pixels(run, plan, rows[part.rows(len(rows), self.size)])

    def __iter__(self) -> Iterator[Any]:
        total = len(spans(len(self.pixels), self.size))
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
