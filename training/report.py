"""`report.html`: one self-contained page, verdict first; and `losses.png`, its first chart, for e-mail."""

import csv
import io
import json
import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jinja2
import numpy as np

from training import provenance
from training.charts import drawing
from training.charts.drift import drift_chart
from training.charts.learning import learning_curves
from training.charts.ranking import MOST_CURVES, precision_recall_chart, roc_chart
from training.charts.reliability import reliability_chart
from training.charts.waterfall import LOSS_NAMES, told, waterfall
from training.evaluation import CHAIN, MEANINGS, Evaluation
from training.headline import headline, shown, tiles
from training.mistakes import Mistake
from training.ranking_curves import Curve, each_class, precision_recall, roc
from training.run_folder import Run
from training.sampling import PRIOR_METHODS
from training.verdict import Verdict, loss_gap_limit

_METRIC_NAMES = {"loss": "loss (nats)", "roc_auc": "ROC AUC", "brier": "Brier score"}
_CHECK_NAMES = {
    "loss_gap": "Loss of the served model − of fit, training images (nats)",
    "batch_norm_gap": "Loss of the served model − with batch statistics, training images (nats)",
    "generalization_gap": "Loss on validation − on natural training images (nats)",
    "worse_than_champion": "Loss of this model − of the champion, test images (nats)",
}
# Named beside the rest, since a change of these is what most often changes a result.
_MAIN_VERSIONS = ("tensorflow", "keras", "numpy", "apache-airflow", "great-expectations", "scikit-learn", "pillow")


def render(
    run: Run,
    evaluation: Evaluation,
    verdict: Verdict,
    scores: Mapping[str, np.ndarray],
    labels: np.ndarray,
    mistakes: Sequence[Mistake] = (),
) -> bytes:
    """The page for one night.

    Args:
        scores: probabilities (n, outputs) of the test images "before" and "after" prior correction.
        labels: their class numbers (n,).
        mistakes: the worst of them, the worst first.
    """
    validation, limit = run.read_json("validation.json"), _limit(run, evaluation)
    page = _environment().get_template("report.html.jinja")
    return page.render(
        config=run.config,
        run=run.store.uri(),
        evaluation=evaluation,
        verdict=verdict,
        headline=headline(evaluation, verdict),
        tiles=tiles(evaluation, verdict, limit, validation),
        limit=limit,
        loss_names=LOSS_NAMES,
        chain=CHAIN,
        meanings=MEANINGS,
        prior_methods=PRIOR_METHODS,
        charts=_charts(run, evaluation, scores, labels),
        confusion=confusion(evaluation.metrics.get("test")),
        mistakes=mistakes,
        batch_norm=run.read_json("batch_norm.json"),
        validation=validation,
        provenance=provenance.read(run.store),
        main_versions=_MAIN_VERSIONS,
        most_curves=MOST_CURVES,
        metric_names=_METRIC_NAMES,
        check_names=_CHECK_NAMES,
        settings=json.dumps(run.config.model_dump(mode="json"), indent=2),
    ).encode()


def losses_picture(run: Run, evaluation: Evaluation, verdict: Verdict) -> bytes:
    """The waterfall below the verdict, as a PNG on white, 1,200 pixels wide; equal evaluations give equal bytes."""
    title = f"{run.config.name}: {headline(evaluation, verdict)}"
    return drawing.png(waterfall(evaluation, _accepted_loss(run, evaluation), title))


def confusion(test: Mapping[str, Any] | None) -> list[list[int]]:
    """How many images of each true class (row) were decided to be of each class (column); empty without metrics."""
    if not test:
        return []
    counts = test["confusion"]
    return [[counts["tn"], counts["fp"]], [counts["fn"], counts["tp"]]] if isinstance(counts, dict) else counts


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("training"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = {
        "number": shown,
        "signed": _signed,
        "brief": _brief,
        "span": _span,
        "words": _words,
        "probability": _probability,
    }
    environment.filters |= {**filters, "base64": _base64, "exp": math.exp}
    return environment


def _charts(run: Run, evaluation: Evaluation, scores: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, str]:
    limit = _accepted_loss(run, evaluation)
    layers: Any = run.read_json("batch_norm.json")["layers"]
    curves = learning_curves(_history(run), evaluation.kept_epoch)
    drawn = {
        "losses": drawing.svg(waterfall(evaluation, limit), told(evaluation, limit)),
        "curves": drawing.svg(curves, "Learning curves: losses by epoch"),
        "drift": drawing.svg(drift_chart(layers), "Drift of BatchNorm statistics by layer") if layers else "",
    }
    if not evaluation.metrics:
        return drawn
    reliable = drawing.svg(reliability_chart(labels, scores), "Reliability on the test images")
    return drawn | {"reliability": reliable} | _ranking(run, evaluation, scores["after"], labels)


def _ranking(run: Run, evaluation: Evaluation, scores: np.ndarray, labels: np.ndarray) -> dict[str, str]:
    """Both charts of how well classes are told apart; empty where the test images are all of one class."""
    classes, seed = run.config.data.classes, run.config.seed
    areas = each_class(roc, classes, scores, labels, seed)
    precisions = each_class(precision_recall, classes, scores, labels, seed)
    known = evaluation.metrics["test"].get("roc_auc_interval")
    if len(areas) == 1 and known and len(classes) == 2:
        # Drawn from more resamples; one page must not give two intervals of one area.
        areas = [replace(areas[0], interval=tuple(known))]
    if not areas:
        return {"roc": "", "precision_recall": ""}
    return {
        "roc": drawing.svg(roc_chart(areas), _curves_told("ROC curve", areas)),
        "precision_recall": drawing.svg(
            precision_recall_chart(precisions), _curves_told("Precision-recall", precisions)
        ),
    }


def _curves_told(kind: str, curves: Sequence[Curve]) -> str:
    return f"{kind} on the test images, area and its 95 % interval: " + "; ".join(curve.told for curve in curves)


def _history(run: Run) -> list[dict[str, float]]:
    rows = csv.DictReader(io.StringIO(run.store.read("history.csv").decode()))
    return [{name: float(value) for name, value in row.items()} for row in rows]


def _limit(run: Run, evaluation: Evaluation) -> float | None:
    fit = evaluation.losses["fit"]
    return None if fit is None else loss_gap_limit(run.config.gate, fit)


def _accepted_loss(run: Run, evaluation: Evaluation) -> float | None:
    """The largest accepted loss of the served model."""
    fit, gap = evaluation.losses["fit"], _limit(run, evaluation)
    return None if fit is None or gap is None else fit + gap


def _probability(value: float) -> str:
    """Three decimals, unless those would say 0 or 1 of what is neither."""
    if min(value, 1 - value) >= 5e-4:
        return shown(value)
    return f"{value:.1e}" if value < 0.5 else f"1 - {1 - value:.1e}"


def _signed(value: float | None) -> str:
    return shown(None) if value is None else f"{value:+.3f}"


def _brief(value: float | None) -> str:
    return shown(None) if value is None else f"{value:.2g}"


def _span(interval: Sequence[float] | None) -> str:
    return shown(None) if not interval else f"{interval[0]:.3f} to {interval[1]:.3f}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _base64(content: bytes) -> str:
    return b64encode(content).decode()
