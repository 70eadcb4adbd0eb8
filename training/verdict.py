"""The gate: whether a night's model may be shipped, and if not, why; pure, and closed when anything is missing."""

from typing import Any

from training.config import GateConfig
from training.documents import Document
from training.errors import Diverged, NightshiftError, WorseThanChampion
from training.evaluation import MEANINGS, REMEDIES, Evaluation

WORSE = "worse_than_champion"


class Reason(Document):
    """Why a model is refused: what was `observed` against which `limit` (nats; null: not a finite number)."""

    code: str
    message: str
    observed: float | None
    limit: float | None
    cause: str
    remedy: str


class Comparison(Document):
    """Candidate against champion `number` on the same test images.

    Differences are candidate minus champion, of losses in nats; each end of an interval is a one-sided 95 % bound.
    """

    number: int
    images: int
    champion_loss: float
    candidate_loss: float
    difference: float
    interval: tuple[float, float]
    champion_roc_auc: float
    candidate_roc_auc: float
    roc_auc_difference: float
    roc_auc_interval: tuple[float, float]


class Verdict(Document):
    accepted: bool
    reasons: tuple[Reason, ...]
    champion: Comparison | None = None


def judge(evaluation: Evaluation, gate: GateConfig, champion: Comparison | None = None) -> Verdict:
    """Apply the gate's limits: divergence needs proof, and so does that the candidate is no worse than the champion."""
    checks = [_non_finite(evaluation, gate)]
    if checks[0] is None:
        checks = [
            _loss_gap(evaluation, gate),
            _batch_norm_gap(evaluation, gate),
            _generalization_gap(evaluation, gate),
            worse_than(champion, gate),
        ]
    reasons = tuple(reason for reason in checks if reason is not None)
    return Verdict(accepted=not reasons, reasons=reasons, champion=champion)


def loss_gap_limit(gate: GateConfig, fit_loss: float) -> float | None:
    """The largest accepted served − fit, in nats: the wider of the absolute and the relative limit."""
    limits = []
    if gate.max_loss_gap is not None:
        limits.append(gate.max_loss_gap)
    if gate.max_loss_ratio is not None:
        limits.append((gate.max_loss_ratio - 1) * fit_loss)
    return max(limits, default=None)


def worse_than(champion: Comparison | None, gate: GateConfig) -> Reason | None:
    """Why the candidate may be worse than the champion; None where it is not, by loss and by ROC AUC, or none is there.

    A test of non-inferiority: the bad end of each interval must be within its limit, so of candidates that are worse
    by just that limit at most one in twenty passes.
    """
    if champion is None:
        return None
    loss_limit, auc_limit = gate.max_champion_loss_increase, gate.max_champion_auc_decrease
    if champion.interval[1] <= loss_limit and -champion.roc_auc_interval[0] <= auc_limit:
        return None
    unsure = champion.difference <= loss_limit and -champion.roc_auc_difference <= auc_limit
    return Reason(
        code=WORSE,
        message=_comparison_told(champion, gate) + (_UNSURE if unsure else ""),
        observed=champion.difference,
        limit=loss_limit,
        cause=WORSE,
        remedy=_MORE_IMAGES if unsure else _COMPARE_RUNS,
    )


_UNSURE = " Both differences are within their limits, but these test images are too few to tell."
_MORE_IMAGES = "The champion stays in service. Collect more test images, or raise split.test or the limits."
_COMPARE_RUNS = "The champion stays in service. Compare the two runs' data and settings before the next night."


def _comparison_told(found: Comparison, gate: GateConfig) -> str:
    return (
        f"Not shown to be as good as champion {found.number} on the same {found.images} test images: "
        f"loss {found.candidate_loss:.3f} against {found.champion_loss:.3f}, difference {found.difference:+.3f} nats "
        f"(90 % interval {found.interval[0]:+.3f} to {found.interval[1]:+.3f}), at most "
        f"{gate.max_champion_loss_increase:+.3f} is accepted; "
        f"ROC AUC {found.candidate_roc_auc:.3f} against {found.champion_roc_auc:.3f}, difference "
        f"{found.roc_auc_difference:+.3f} (90 % interval {found.roc_auc_interval[0]:+.3f} to "
        f"{found.roc_auc_interval[1]:+.3f}), at least {-gate.max_champion_auc_decrease:+.3f} is accepted."
    )


def failure_of(verdict: Verdict) -> NightshiftError:
    """The error a refused model ends its run with; divergence outranks the champion."""
    first = verdict.reasons[0]
    kind = WorseThanChampion if first.code == WORSE else Diverged
    return kind(" ".join(reason.message for reason in verdict.reasons), cause=first.cause, remedy=first.remedy)


def _non_finite(evaluation: Evaluation, gate: GateConfig) -> Reason | None:
    tolerated = set(evaluation.absent) - _needed(gate)
    missing = [name for name, loss in evaluation.losses.items() if loss is None and name not in tolerated]
    if not missing:
        return None
    message = f"Losses that are missing or not finite numbers: {', '.join(missing)}."
    return _reason("non_finite", message, None, None, "non_finite")


def _needed(gate: GateConfig) -> set[str]:
    """The losses without which a configured limit cannot be held against anything."""
    needed = {"served", "inference", "inference_before"}
    if gate.max_loss_gap is not None or gate.max_loss_ratio is not None:
        needed.add("fit")
    if gate.max_batch_norm_gap is not None:
        needed.add("batch_statistics")
    if gate.max_generalization_gap is not None:
        needed |= {"natural", "validation"}
    return needed


def _loss_gap(evaluation: Evaluation, gate: GateConfig) -> Reason | None:
    if gate.max_loss_gap is None and gate.max_loss_ratio is None:
        return None
    fit, served = _loss(evaluation, "fit"), _loss(evaluation, "served")
    limit = loss_gap_limit(gate, fit)
    if limit is None or _lower(evaluation, "served_minus_fit") <= limit:
        return None
    cause = _dominant(evaluation)
    message = (
        f"Training and evaluation diverged: fit loss {fit:.3f}, evaluation loss {served:.3f} on training images; "
        f"{_gap(evaluation, 'served_minus_fit')}, limit {limit:.3f}. Likely cause: {cause}, {MEANINGS[cause]}."
    )
    return _reason("loss_gap", message, served - fit, limit, cause)


def _batch_norm_gap(evaluation: Evaluation, gate: GateConfig) -> Reason | None:
    name, limit = "served_minus_batch_statistics", gate.max_batch_norm_gap
    if limit is None or _lower(evaluation, name) <= limit:
        return None
    cause = _statistics_cause(evaluation)
    message = (
        f"BatchNorm's statistics cost too much: {_gap(evaluation, name)} over batch statistics on the same images, "
        f"limit {limit:.3f}. Likely cause: {cause}, {MEANINGS[cause]}."
    )
    return _reason("batch_norm_gap", message, evaluation.gaps[name], limit, cause)


def _generalization_gap(evaluation: Evaluation, gate: GateConfig) -> Reason | None:
    limit = gate.max_generalization_gap
    if limit is None or _lower(evaluation, "generalization") <= limit:
        return None
    message = f"Validation is too far from training: {_gap(evaluation, 'generalization')}, limit {limit:.3f}."
    return _reason("generalization_gap", message, evaluation.causes["generalization"], limit, "generalization")


def _dominant(evaluation: Evaluation) -> str:
    """The cause that adds most between fit and the served model."""
    statistics = _statistics_cause(evaluation)
    shares = {name: evaluation.causes[name] or 0.0 for name in ("moving_weights", "stochastic_layers")}
    shares[statistics] = evaluation.gaps["served_minus_batch_statistics"] or 0.0
    return max(shares, key=lambda name: shares[name])


def _statistics_cause(evaluation: Evaluation) -> str:
    """Lagging statistics where the moving ones are served and recalibration would help; else the batches' size."""
    lag = _loss(evaluation, "served") - _loss(evaluation, "inference")
    return "batch_norm" if lag > (evaluation.causes["small_batches"] or 0.0) else "small_batches"


def _loss(evaluation: Evaluation, name: str) -> float:
    loss = evaluation.losses[name]
    assert loss is not None  # _non_finite comes first
    return loss


def _lower(evaluation: Evaluation, name: str) -> float:
    interval = evaluation.intervals.get(name)
    # Without an interval nothing is known, and a gate that knows nothing stays closed.
    return float("inf") if interval is None else interval[0]


def _gap(evaluation: Evaluation, name: str) -> str:
    value = (evaluation.gaps | evaluation.causes)[name]
    interval = evaluation.intervals.get(name)
    bounds = "no interval" if interval is None else f"98 % interval {interval[0]:.3f} to {interval[1]:.3f}"
    return f"gap {value:.3f} nats ({bounds})"


def _reason(code: str, message: str, observed: Any, limit: float | None, cause: str) -> Reason:
    return Reason(code=code, message=message, observed=observed, limit=limit, cause=cause, remedy=REMEDIES[cause])
