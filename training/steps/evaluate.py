"""Measure every loss from `fit` to validation, compare with the champion, and fail the run if the gate says so."""

import logging
from typing import Any

import keras
import numpy as np

from training import champion, metrics, report
from training.augment import augmented
from training.calibration import serving_prior
from training.determinism import make_deterministic
from training.evaluation import Evaluation
from training.gap import explain, statistics_of
from training.logits import in_batches, inference_logits, probabilities
from training.mini_batches import mini_batch_statistics
from training.run_folder import Run
from training.sampling import Prior, SamplingPlan
from training.steps.contest import against
from training.steps.inputs import Labelled, labelled_split, read_plan, training_pixels
from training.steps.recalibrate_batch_norm import load, pooled_statistics
from training.steps.worst_images import worst_images
from training.store import open_store
from training.verdict import Comparison, Verdict, failure_of, judge

log = logging.getLogger(__name__)
INPUTS = (
    "manifest.parquet",
    "quarantine.parquet",
    "sampling.json",
    "checkpoint/model.keras",
    "checkpoint/steps.json",
    "recalibrated/model.keras",
    "batch_norm.json",
)
OUTPUTS = ("evaluation.json", "verdict.json", "report.html", "losses.png")


def work(run: Run) -> None:
    make_deterministic(run.config.seed)
    plan = read_plan(run)
    test = labelled_split(run, "test")
    evaluation, logits = _evaluate(run, plan, test)
    run.write_json("evaluation.json", evaluation.tree())
    verdict = judge(evaluation, run.config.gate, _against_champion(run, logits["after"], test[1]))
    run.write_json("verdict.json", verdict.tree())
    _show(run, evaluation, verdict, logits, test[1])
    _conclude(evaluation, verdict)


def _show(
    run: Run, evaluation: Evaluation, verdict: Verdict, logits: dict[str, np.ndarray], labels: np.ndarray
) -> None:
    """Refused nights need the page more than others: it is written before the run fails."""
    mistakes = worst_images(run, logits["after"], labels, evaluation.threshold)
    scores = {name: probabilities(values) for name, values in logits.items()}
    run.store.write("report.html", report.render(run, evaluation, verdict, scores, labels, mistakes))
    run.store.write("losses.png", report.losses_picture(run, evaluation, verdict))


def _conclude(evaluation: Evaluation, verdict: Verdict) -> None:
    log.info("losses: %s", ", ".join(f"{name} {_shown(loss)}" for name, loss in evaluation.losses.items()))
    if not verdict.accepted:
        raise failure_of(verdict)
    low, high = evaluation.metrics["test"]["roc_auc_interval"]
    log.info("accepted: test ROC AUC %.3f (95 %% interval %.3f to %.3f)", _auc(evaluation), low, high)


def _evaluate(run: Run, plan: SamplingPlan, test: Labelled) -> tuple[Evaluation, dict[str, np.ndarray]]:
    """The whole evaluation, and the served model's logits on the test images before and after prior correction."""
    model = load(run, run.store.read("checkpoint/model.keras"))
    validation = labelled_split(run, "validation")
    natural = _training(run, plan, plan.natural(_listed(run), "natural"))
    served = load(run, run.store.read("recalibrated/model.keras"))
    applied = bool(run.read_json("batch_norm.json")["applied"])
    statistics = statistics_of(served) if applied else _measured_statistics(run)
    evaluation = _telescope(run, plan, model, natural, validation, statistics, serve_recalibrated=applied)
    data = {"train": natural, "validation": validation, "test": test}
    return _with_served(run, plan, evaluation, served, data, recalibrated_on_natural=applied and _on_natural(run))


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
    settings, size = run.config.augment, run.config.train.batch_size
    evaluation = explain(
        model,
        x,
        y,
        fit_loss=np.array(per_step[kept - 1]),
        batch_size=size,
        natural=natural,
        validation=validation,
        seed=run.config.seed,
        recalibrated=statistics,
        serve_recalibrated=serve_recalibrated,
        augmented=augmented(plan, settings, x, "evaluate", size) if settings.enabled else None,
        resamples=run.config.evaluate.resamples,
    )
    return evaluation.model_copy(update={"kept_epoch": kept, "penalties": float(sum(model.losses))})


def _measured_statistics(run: Run) -> dict[str, np.ndarray]:
    """What recalibration would have written, where it was off or had nothing to write."""
    return pooled_statistics(run, load(run, run.store.read("checkpoint/model.keras")))


def _with_served(
    run: Run,
    plan: SamplingPlan,
    evaluation: Evaluation,
    served: keras.Model,
    data: dict[str, Labelled],
    *,
    recalibrated_on_natural: bool,
) -> tuple[Evaluation, dict[str, np.ndarray]]:
    """Add what is measured of the served model, its prior corrected as the export will be."""
    forward = inference_logits(served)
    raw = {name: in_batches(forward, pixels, 64) for name, (pixels, _) in data.items()}
    labels = {name: classes for name, (_, classes) in data.items()}
    prior = serving_prior(
        plan, natural_statistics=recalibrated_on_natural, logits=raw["validation"], labels=labels["validation"]
    )
    found = metrics.served_metrics(raw, labels, prior, run.config.seed, plan.classes)
    update = found | {"prior": prior, "mini_batch_statistics": _mini_batches(run, served, data["test"], prior)}
    return evaluation.model_copy(update=update), {"before": raw["test"], "after": prior.corrected(raw["test"])}


def _mini_batches(run: Run, served: keras.Model, test: Labelled, prior: Prior) -> dict[str, Any] | None:
    size, seed = run.config.train.batch_size, run.config.seed
    return mini_batch_statistics(served, *test, batch_size=size, prior=prior, seed=seed)


def _on_natural(run: Run) -> bool:
    return run.config.recalibrate.distribution == "natural"


def _against_champion(run: Run, candidate: np.ndarray, labels: np.ndarray) -> Comparison | None:
    store = open_store(run.config.store.champion)
    entry = champion.current(store)
    if entry is None or not np.isfinite(candidate).all():
        return None
    return against(run, store, entry, candidate, labels)


def _training(run: Run, plan: SamplingPlan, rows: np.ndarray) -> Labelled:
    return training_pixels(run, plan, rows), np.asarray(plan.labels)[rows]


def _listed(run: Run) -> int:
    return run.config.evaluate.batches * run.config.train.batch_size


def _auc(evaluation: Evaluation) -> float:
    return float(evaluation.metrics["test"]["roc_auc"])


def _shown(loss: float | None) -> str:
    return "not finite" if loss is None else f"{loss:.3f}"
