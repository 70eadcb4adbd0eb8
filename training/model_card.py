"""The model card that is stored beside a champion."""

from typing import Any

from training.champion import Champion
from training.run_folder import Run
from training.sampling import PRIOR_METHODS, Prior, SamplingPlan

_CARD = """\
# {name}, champion {number}

{task}
- **Network**: {backbone} ({weights} weights), {size}×{size} pixels inside, policy `{policy}`.
{decision}
- **BatchNorm**: {batch_norm}.
{quality}
- **Training against evaluation**: fit loss {fit:.3f}, served {served:.3f} on training images.
- **From**: run `{run}`; SHA-256 of the model `{sha256}`; promoted {promoted_at}.

Load it with `keras.saving.load_model("model.keras", safe_mode=True)`.
"""
# What differs between two classes and more.
_TWO = {
    "task": """\
- **Task**: tell `{positive}` from `{negative}` in images; input uint8 N×H×W×3 RGB of any size, output the probability
  of `{positive}` at its natural rate ({rate:.1%} of the training images).""",
    "decision": """\
- **Prior**: trained with {trained:.1%} of `{positive}`; {correction:+.3f} is added to the log odds,
  {method}.
- **Decision**: `{positive}` at or above {threshold:.3f}, chosen on validation after that correction (Youden's J).""",
    "quality": """\
- **Test** ({images} images): ROC AUC {auc:.3f} (95 % interval {low:.3f} to {high:.3f}), loss {loss:.3f},
  precision {precision:.3f}, recall {recall:.3f}.
- **Calibration** (test): mean probability {mean_predicted:.3f}, observed share {observed_share:.3f}, expected
  calibration error {expected_calibration_error:.3f} in {bins} bins of equal count; {uncorrected:.3f} before\
 correction.""",
}
_SEVERAL = {
    "task": """\
- **Task**: tell {labels} apart in images; input uint8 N×H×W×3 RGB of any size, output the probabilities of these
  classes, in this order, at their natural rates ({rates} of the training images).""",
    "decision": """\
- **Prior**: trained with {shares}; {shifts} are added to the logits,
  {method}.
- **Decision**: the class with the largest probability.""",
    "quality": """\
- **Test** ({images} images): ROC AUC {auc:.3f} (mean of each class against the rest, 95 % interval {low:.3f} to
  {high:.3f}), loss {loss:.3f}, accuracy {accuracy:.3f}, balanced accuracy {balanced_accuracy:.3f}.
- **Calibration** (test, of the most probable class): mean confidence {mean_confidence:.3f}, expected calibration
  error {expected_calibration_error:.3f} in {bins} bins of equal count; {uncorrected:.3f} before correction.""",
}


def model_card(run: Run, entry: Champion) -> str:
    """Markdown made from the run's own files."""
    evaluation: dict[str, Any] = run.read_json("evaluation.json")
    test, settings = evaluation["metrics"]["test"], run.config.model
    calibration = evaluation["calibration"]
    prior = Prior.model_validate(evaluation["prior"])
    plan = SamplingPlan.model_validate(run.read_json("sampling.json"))
    facts = {
        "name": run.config.name,
        **(_of_two(entry, plan, prior) if len(entry.classes) == 2 else _of_several(entry, plan, prior)),
        "method": PRIOR_METHODS[prior.method],
        "uncorrected": calibration["before"]["expected_calibration_error"],
        "backbone": settings.backbone,
        "weights": settings.weights or "random",
        "size": settings.input_size,
        "policy": settings.policy,
        "batch_norm": run.read_json("batch_norm.json")["reason"],
        "auc": test["roc_auc"],
        "low": test["roc_auc_interval"][0],
        "high": test["roc_auc_interval"][1],
    }
    told = calibration["after"] | test | evaluation["losses"] | entry.tree() | facts
    parts = _TWO if len(entry.classes) == 2 else _SEVERAL
    return _CARD.format(**told | {name: part.format(**told) for name, part in parts.items()})


def _of_two(entry: Champion, plan: SamplingPlan, prior: Prior) -> dict[str, Any]:
    return {
        "negative": entry.classes[0],
        "positive": entry.classes[1],
        "rate": plan.natural_share[1],
        "trained": plan.trained_share[1],
        "correction": prior.on_outputs(1)[0],
    }


def _of_several(entry: Champion, plan: SamplingPlan, prior: Prior) -> dict[str, Any]:
    return {
        "labels": ", ".join(f"`{label}`" for label in entry.classes),
        "rates": ", ".join(f"{share:.1%}" for share in plan.natural_share),
        "shares": ", ".join(f"{share:.1%}" for share in plan.trained_share),
        "shifts": ", ".join(f"{shift:+.3f}" for shift in prior.shift),
    }
