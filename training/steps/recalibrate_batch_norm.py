"""Replace BatchNorm's lagging statistics by pooled ones; what comes out is what will be served."""

import logging
from collections.abc import Iterator

import keras
import numpy as np

from training import network
from training.batchnorm import BatchNormReport, Recalibrator
from training.determinism import make_deterministic
from training.errors import Diverged
from training.evaluation import REMEDIES
from training.logits import batches
from training.progress import followed
from training.run_folder import Run
from training.sampling import SamplingPlan
from training.steps.inputs import read_plan, training_pixels

log = logging.getLogger(__name__)
INPUTS = ("manifest.parquet", "sampling.json", "checkpoint/model.keras")
OUTPUTS = ("recalibrated/model.keras", "batch_norm.json")
DISABLED = "recalibrate.enabled is false; the statistics were measured and left as training left them"


def work(run: Run) -> None:
    make_deterministic(run.config.seed)
    checkpoint = run.store.read("checkpoint/model.keras")
    model = load(run, checkpoint)
    report = recalibrated(run, model, write=run.config.recalibrate.enabled)
    # A model that was not changed is passed on to the byte.
    run.store.write("recalibrated/model.keras", network.to_bytes(model) if report.applied else checkpoint)
    run.write_json("batch_norm.json", report.tree())
    log.info("%s: %s (%d images)", "recalibrated" if report.applied else "unchanged", report.reason, report.samples)


def load(run: Run, content: bytes) -> keras.Model:
    """A run's model with the policy's layers frozen, as it was while training."""
    model = network.from_bytes(content)
    network.apply_policy(model, run.config.model)
    return model


def recalibrated(run: Run, model: keras.Model, *, write: bool) -> BatchNormReport:
    """Recalibrate a model of this run on the images its config names, or only measure."""
    plan = read_plan(run)
    rows = _rows(run, plan)
    images = training_pixels(run, plan, rows)
    recalibrator = Recalibrator(model)
    try:
        stream = _followed(images, run.config.train.batch_size)
        return recalibrator.recalibrate(stream) if write else recalibrator.inspect(stream, DISABLED)
    except ValueError as error:
        raise Diverged(str(error), cause="non_finite", remedy=REMEDIES["non_finite"]) from error


def _rows(run: Run, plan: SamplingPlan) -> np.ndarray:
    settings = run.config.recalibrate
    if settings.distribution == "natural":
        return plan.natural(settings.samples, "recalibrate")
    return plan.take(settings.samples, "recalibrate")


def _followed(images: np.ndarray, size: int) -> Iterator[object]:
    return followed(batches(images, size), log, "recalibrate", -(-len(images) // size), "batches")
