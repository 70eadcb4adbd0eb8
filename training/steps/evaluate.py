"""Measure every loss from `fit` to validation, compare with the champion, and fail the run if the gate says so."""

import logging
from typing import Any

import keras
import numpy as np

from training import champion, metrics, network, report
from training.comparison import compare, served_logits
from training.determinism import make_deterministic
from training.errors import ConfigError, received
from training.evaluation import Evaluation
from training.gap import explain, statistics_of
from training.logits import in_batches, inference_logits, probabilities
from training.run_folder import Run
from training.sampling import SamplingPlan, prior_shift
from training.steps.inputs import Labelled, labelled_split, raw_images, read_plan, training_pixels
from training.steps.recalibrate_batch_norm import load, recalibrated
from training.store import open_store
from training.verdict import Comparison, Verdict, failure_of, judge

log = logging.getLogger(__name__)
INPUTS = (
    "manifest.parquet",
    "sampling.json",
    "checkpoint/model.keras",
    "checkpoint/steps.json",
    "recalibrated/model.keras",
)
OUTPUTS = ("evaluation.json", "verdict.json", "report.html")


def work(run: Run) -> None:
    make_deterministic(run.config.seed)
    plan = read_plan(run)
    test = labelled_split(run, "test")
    evaluation, logits = _evaluate(run, plan, test)
    run.write_json("evaluation.json", evaluation.tree())
    verdict = judge(evaluation, run.config.gate, _against_champion(run, logits, test[1]))
    run.write_json("verdict.json", verdict.tree())
    run.store.write("report.html", report.render(run, evaluation, verdict, probabilities(logits)[:, 0], test[1]))
    _conclude(evaluation, verdict)


def _conclude(evaluation: Evaluation, verdict: Verdict) -> None:
    log.info("losses: %s", ", ".join(f"{name} {_shown(loss)}" for name, loss in evaluation.losses.items()))
    if not verdict.accepted:
        raise failure_of(verdict)
    low, high = evaluation.metrics["test"]["roc_auc_interval"]
    log.info("accepted: test ROC AUC %.3f (95 %% interval %.3f to %.3f)", _auc(evaluation), low, high)


def _evaluate(run: Run, plan: SamplingPlan, test: Labelled) -> tuple[Evaluation, np.ndarray]:
    """The whole evaluation, and the served model's logits on the test images."""
    model = load(run, run.store.read("checkpoint/model.keras"))
    validation = labelled_split(run, "validation")
    natural = _training(run, plan, plan.natural(_listed(run), "natural"))
    served = load(run, run.store.read("recalibrated/model.keras"))
    applied = bool(run.read_json("batch_norm.json")["applied"])
    statistics = statistics_of(served) if applied else _measured_statistics(run)
    evaluation = _telescope(run, plan, model, natural, validation, statistics, serve_recalibrated=applied)
    logits = _logits(served, plan, {"train": natural, "validation": validation, "test": test})
    labels = {"train": natural[1], "validation": validation[1], "test": test[1]}
    return _with_metrics(evaluation, logits, labels, run.config.seed), logits["test"]


def _telescope(
    run: Run,
    plan: SamplingPlan,
    model: keras.Model,
    natural: Labelled,
    validation: Labelled,
    statistics: dict[str, np.ndarray],
    *,
    serve_recalibrated: bool,
) -> Evaluation:
    steps = run.read_json("checkpoint/steps.json")
    kept: Any = steps["kept_epoch"]
    per_step: Any = steps["losses"]
    x, y = _training(run, plan, plan.take(_listed(run), "evaluate"))
    evaluation = explain(
        model,
        x,
        y,
        fit_loss=np.array(per_step[kept - 1]),
        batch_size=run.config.train.batch_size,
        natural=natural,
        validation=validation,
        seed=run.config.seed,
        recalibrated=statistics,
        serve_recalibrated=serve_recalibrated,
        resamples=run.config.evaluate.resamples,
    )
    return evaluation.model_copy(update={"kept_epoch": kept, "penalties": float(sum(model.losses))})


def _measured_statistics(run: Run) -> dict[str, np.ndarray]:
    """What recalibration would have written, where it was off or had nothing to write."""
    copy = load(run, run.store.read("checkpoint/model.keras"))
    recalibrated(run, copy, write=True)
    return statistics_of(copy)


def _logits(served: keras.Model, plan: SamplingPlan, data: dict[str, Labelled]) -> dict[str, np.ndarray]:
    """Logits of the served model, its prior corrected as the export will be."""
    shift = prior_shift(plan)
    forward = inference_logits(served)
    return {name: in_batches(forward, pixels, 64) + (shift[1] - shift[0]) for name, (pixels, _) in data.items()}


def _with_metrics(
    evaluation: Evaluation, logits: dict[str, np.ndarray], labels: dict[str, np.ndarray], seed: int
) -> Evaluation:
    finite = all(np.isfinite(values).all() for values in logits.values())
    if not finite:
        return evaluation
    threshold = metrics.best_threshold(probabilities(logits["validation"])[:, 0], labels["validation"])
    found = {name: metrics.binary_metrics(logits[name], labels[name], threshold, seed) for name in logits}
    return evaluation.model_copy(update={"metrics": found, "threshold": threshold})


def _against_champion(run: Run, candidate: np.ndarray, labels: np.ndarray) -> Comparison | None:
    store = open_store(run.config.store.champion)
    entry = champion.current(store)
    if entry is None or not np.isfinite(candidate).all():
        return None
    if entry.classes != run.config.data.classes:
        raise ConfigError(received("store.champion", entry.classes, f"a champion of {run.config.data.classes}"))
    model = network.from_bytes(champion.read_model(store, entry))
    logits = served_logits(model, raw_images(run, "test"))
    settings = run.config.evaluate
    return compare(entry.number, logits, candidate, labels, resamples=settings.resamples, seed=run.config.seed)


def _training(run: Run, plan: SamplingPlan, rows: np.ndarray) -> Labelled:
    return training_pixels(run, plan, rows), np.asarray(plan.labels)[rows]


def _listed(run: Run) -> int:
    return run.config.evaluate.batches * run.config.train.batch_size


def _auc(evaluation: Evaluation) -> float:
    return float(evaluation.metrics["test"]["roc_auc"])


def _shown(loss: float | None) -> str:
    return "not finite" if loss is None else f"{loss:.3f}"
