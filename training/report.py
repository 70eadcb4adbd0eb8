"""`report.html`: one self-contained page, verdict first."""

import csv
import io
import json
from collections.abc import Mapping
from typing import Any

import jinja2
import numpy as np

from training import charts
from training.evaluation import CHAIN, MEANINGS, Evaluation
from training.provenance import PROVENANCE
from training.run_folder import Run
from training.sampling import PRIOR_METHODS
from training.verdict import Verdict, loss_gap_limit

LOSS_NAMES = {
    "fit": "A  fit, as training reported it",
    "train_mode": "B  training mode, weights held",
    "batch_statistics": "C  batch statistics, no dropout",
    "inference_before": "D  evaluate, before recalibration",
    "inference": "E  evaluate, recalibrated",
    "natural": "F  natural training images",
    "validation": "G  validation",
}


def render(
    run: Run, evaluation: Evaluation, verdict: Verdict, scores: Mapping[str, np.ndarray], labels: np.ndarray
) -> bytes:
    """The page for one night.

    Args:
        scores: probabilities (n, outputs) of the test images "before" and "after" prior correction.
        labels: their class numbers (n,).
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("training"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html.jinja")
    return page.render(
        config=run.config,
        run=run.store.uri(),
        evaluation=evaluation,
        verdict=verdict,
        limit=_limit(run, evaluation),
        loss_names=LOSS_NAMES,
        chain=CHAIN,
        meanings=MEANINGS,
        prior_methods=PRIOR_METHODS,
        charts=_charts(run, evaluation, scores, labels),
        batch_norm=run.read_json("batch_norm.json"),
        validation=run.read_json("validation.json"),
        provenance=run.read_json(PROVENANCE),
        settings=json.dumps(run.config.model_dump(mode="json"), indent=2),
    ).encode()


def _charts(run: Run, evaluation: Evaluation, scores: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, str]:
    history = list(csv.DictReader(io.StringIO(run.store.read("history.csv").decode())))
    rows = [{name: float(value) for name, value in row.items()} for row in history]
    layers: Any = run.read_json("batch_norm.json")["layers"]
    gap = _limit(run, evaluation)
    fit = evaluation.losses["fit"]
    accepted = None if gap is None or fit is None else fit + gap
    drawn = {
        "losses": charts.losses_chart(evaluation.losses, evaluation.intervals, LOSS_NAMES, accepted),
        "curves": charts.learning_curves(rows, evaluation.kept_epoch),
        "drift": charts.drift_chart(layers) if layers else "",
    }
    if evaluation.metrics:
        drawn["roc"] = charts.roc_chart(labels, scores["after"], run.config.data.classes)
        drawn["reliability"] = charts.reliability_chart(labels, scores)
    return drawn


def _limit(run: Run, evaluation: Evaluation) -> float | None:
    fit = evaluation.losses["fit"]
    return None if fit is None else loss_gap_limit(run.config.gate, fit)
