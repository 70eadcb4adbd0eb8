"""What a night came to, in one sentence and five figures; pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.evaluation import Evaluation
from training.verdict import Reason, Verdict

_NONE = "–"


@dataclass(frozen=True)
class Tile:
    """A key figure: its name, the figure, and what to hold it against; `alarm` where that is why the run failed."""

    name: str
    figure: str
    beside: str
    alarm: bool = False


def headline(evaluation: Evaluation, verdict: Verdict) -> str:
    """One sentence; of several reasons to refuse the first."""
    if verdict.accepted:
        fit, served = shown(evaluation.losses["fit"]), shown(evaluation.losses["served"])
        return f"Accepted: loss {fit} in training, {served} in evaluation on the same images."
    return f"Refused: {_refusal(evaluation, verdict.reasons[0])}."


def _refusal(evaluation: Evaluation, reason: Reason) -> str:
    observed, limit, losses = shown(reason.observed), shown(reason.limit), evaluation.losses
    match reason.code:
        case "loss_gap":
            fit, served = shown(losses["fit"]), shown(losses["served"])
            return f"loss {fit} in training became {served} in evaluation on the same images"
        case "batch_norm_gap":
            return f"BatchNorm's statistics cost {observed} nats, at most {limit} is accepted"
        case "generalization_gap":
            return f"the loss on new images is {observed} nats above training's, at most {limit} is accepted"
        case "non_finite":
            return "a loss is missing or not a finite number"
        case "worse_than_champion":
            return "not shown to be as good as the champion in service"
    return reason.message.rstrip(".")


def tiles(
    evaluation: Evaluation, verdict: Verdict, limit: float | None, validation: Mapping[str, Any]
) -> tuple[Tile, ...]:
    """Fit, evaluate before and after, the gap, how good it is, how much it saw.

    Args:
        limit: the largest accepted served − fit in nats; null where none is known.
        validation: what `validation.json` holds.
    """
    codes = {reason.code for reason in verdict.reasons}
    losses = evaluation.losses
    before, after = shown(losses["inference_before"]), shown(losses["inference"])
    kept = losses["served"] == losses["inference_before"] != losses["inference"]
    recalibrated = "nats, before → after recalibration" + ("; the former is served" if kept else "")
    used = f"of {validation['images']:,}; {validation['images'] - validation['accepted']:,} in quarantine"
    return (
        Tile("Fit loss", shown(losses["fit"]), "nats, as training reported it"),
        Tile("Evaluate", f"{before} → {after}", recalibrated),
        Tile("Gap, served − fit", _gap(evaluation), _accepted(limit), bool(codes & {"loss_gap", "non_finite"})),
        _quality(evaluation, "worse_than_champion" in codes),
        Tile("Images used", f"{validation['accepted']:,}", used),
    )


def _gap(evaluation: Evaluation) -> str:
    gap = evaluation.gaps.get("served_minus_fit")
    return _NONE if gap is None else f"{gap:+.3f}"


def _accepted(limit: float | None) -> str:
    return "no limit known" if limit is None else f"nats; accepted up to {limit:+.3f}"


def _quality(evaluation: Evaluation, alarm: bool) -> Tile:
    test = evaluation.metrics.get("test", {})
    interval = test.get("roc_auc_interval")
    beside = "not measured" if interval is None else f"95 % interval {interval[0]:.3f} to {interval[1]:.3f}"
    return Tile("Test ROC AUC", shown(test.get("roc_auc")), beside, alarm)


def shown(value: float | None) -> str:
    """Three decimals; a dash for what is not there."""
    return _NONE if value is None else f"{value:.3f}"
