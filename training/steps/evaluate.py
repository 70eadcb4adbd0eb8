"""Measure every loss from `fit` to validation, compare with the champion, and fail the run if the gate says so."""

import logging
from typing import Any

import numpy as np

from training import champion, metrics, report
from training.calibration import serving_prior
from training.determinism import make_deterministic
from training.evaluation import Evaluation
from training.gap import WAYS, conclude
from training.logits import cross_entropies, probabilities
from training.mini_batches import mini_batch_statistics
from training.run_folder import Run
from training.sampling import Prior, SamplingPlan
from training.shards import WHOLE, Part
from training.steps import sharding
from training.steps.answers import answers, champion_answers, listed, natural
from training.steps.contest import against
from training.steps.inputs import read_plan, split_labels, training_labels
from training.steps.sharding import Found, together
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


def shard(run: Run, part: Part) -> Found:
    """What the networks answer to a part of the images."""
    make_deterministic(run.config.seed)
    return {**answers(run, part), **(champion_answers(run, part) if part != WHOLE else {})}


def work(run: Run) -> None:
    found = together(sharding.found(run, "evaluate", INPUTS, shard))
    plan, labels = read_plan(run), split_labels(run, "test")
    evaluation, logits = _evaluate(run, plan, found)
    run.write_json("evaluation.json", evaluation.tree())
    verdict = judge(evaluation, run.config.gate, _against_champion(run, logits["after"], labels, found))
    run.write_json("verdict.json", verdict.tree())
    _show(run, evaluation, verdict, logits, labels)
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


def _evaluate(run: Run, plan: SamplingPlan, found: dict[str, np.ndarray]) -> tuple[Evaluation, dict[str, np.ndarray]]:
    """The whole evaluation, and the served model's logits on the test images before and after prior correction."""
    labels = {
        "list": training_labels(plan, listed(run, plan)),
        "natural": training_labels(plan, natural(run, plan)),
        "validation": split_labels(run, "validation"),
        "test": split_labels(run, "test"),
    }
    applied = bool(run.read_json("batch_norm.json")["applied"])
    evaluation = _explain(run, found, labels, serve_recalibrated=applied)
    return _with_served(run, plan, evaluation, found, labels, recalibrated_on_natural=applied and _on_natural(run))


def _explain(
    run: Run, found: dict[str, np.ndarray], labels: dict[str, np.ndarray], *, serve_recalibrated: bool
) -> Evaluation:
    steps = run.read_json("checkpoint/steps.json")
    kept: Any = steps["kept_epoch"]
    per_step: Any = steps["losses"]
    places = {f"{way}/list": (way, "list") for way in (*WAYS, "inference")}
    places |= {f"inference/{name}": (name, name) for name in ("natural", "validation")}
    rows = {loss: cross_entropies(found[key], labels[data]) for key, (loss, data) in places.items()}
    evaluation = conclude(
        rows,
        {data: (found[f"digests/{data}"], labels[data]) for data in ("list", "natural", "validation")},
        fit_loss=np.array(per_step[kept - 1]),
        serve_recalibrated=serve_recalibrated,
        seed=run.config.seed,
        resamples=run.config.evaluate.resamples,
    )
    return evaluation.model_copy(update={"kept_epoch": kept, "penalties": float(found["penalties"][0])})


def _with_served(
    run: Run,
    plan: SamplingPlan,
    evaluation: Evaluation,
    found: dict[str, np.ndarray],
    labels: dict[str, np.ndarray],
    *,
    recalibrated_on_natural: bool,
) -> tuple[Evaluation, dict[str, np.ndarray]]:
    """Add what was found of the served model, its prior corrected as the export will be."""
    data = {"train": "natural", "validation": "validation", "test": "test"}
    raw = {name: found[f"served/{shown}"] for name, shown in data.items()}
    truth = {name: labels[shown] for name, shown in data.items()}
    prior = serving_prior(
        plan, natural_statistics=recalibrated_on_natural, logits=raw["validation"], labels=truth["validation"]
    )
    metric = metrics.served_metrics(raw, truth, prior, run.config.seed, plan.classes)
    mixed = _mini_batches(run, found.get("mini_batches/test"), truth["test"], prior)
    update = metric | {"prior": prior, "mini_batch_statistics": mixed}
    return evaluation.model_copy(update=update), {"before": raw["test"], "after": prior.corrected(raw["test"])}


def _mini_batches(run: Run, answers: np.ndarray | None, labels: np.ndarray, prior: Prior) -> dict[str, Any] | None:
    if answers is None:
        return None
    size, seed = run.config.train.batch_size, run.config.seed
    return mini_batch_statistics(answers, labels, batch_size=size, prior=prior, seed=seed)


def _on_natural(run: Run) -> bool:
    return run.config.recalibrate.distribution == "natural"


def _against_champion(
    run: Run, candidate: np.ndarray, labels: np.ndarray, found: dict[str, np.ndarray]
) -> Comparison | None:
    store = open_store(run.config.store.champion)
    entry = champion.current(store)
    if entry is None or not np.isfinite(candidate).all():
        return None
    answers = found.get(f"champion/{entry.number}")
    # Shards that met different champions have each asked theirs about some of the images alone.
    whole = answers if answers is not None and len(answers) == len(labels) else None
    return against(run, store, entry, candidate, labels, whole)


def _auc(evaluation: Evaluation) -> float:
    return float(evaluation.metrics["test"]["roc_auc"])


def _shown(loss: float | None) -> str:
    return "not finite" if loss is None else f"{loss:.3f}"
