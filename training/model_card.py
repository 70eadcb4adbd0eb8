"""The model card that is stored beside a champion."""

from typing import Any

from training.champion import Champion
from training.run_folder import Run
from training.sampling import PRIOR_METHODS, Prior, SamplingPlan

_CARD = """\
# {name}, champion {number}

- **Task**: tell `{positive}` from `{negative}` in images; input uint8 N×H×W×3 RGB of any size, output the probability
  of `{positive}` at its natural rate ({rate:.1%} of the training images).
- **Network**: {backbone} ({weights} weights), {size}×{size} pixels inside, policy `{policy}`.
- **Prior**: trained with {trained:.1%} of `{positive}`; {correction:+.3f} is added to the log odds,
  {method}.
- **Decision**: `{positive}` at or above {threshold:.3f}, chosen on validation after that correction (Youden's J).
- **BatchNorm**: {batch_norm}.
- **Test** ({images} images): ROC AUC {auc:.3f} (95 % interval {low:.3f} to {high:.3f}), loss {loss:.3f},
  precision {precision:.3f}, recall {recall:.3f}.
- **Calibration** (test): mean probability {mean_predicted:.3f}, observed share {observed_share:.3f}, expected
  calibration error {expected_calibration_error:.3f} in {bins} bins of equal count; {uncorrected:.3f} before correction.
- **Training against evaluation**: fit loss {fit:.3f}, served {served:.3f} on training images.
- **From**: run `{run}`; SHA-256 of the model `{sha256}`; promoted {promoted_at}.

Load it with `keras.saving.load_model("model.keras", safe_mode=True)`.
"""


def model_card(run: Run, entry: Champion) -> str:
    """Markdown made from the run's own files."""
    evaluation: dict[str, Any] = run.read_json("evaluation.json")
    test, settings = evaluation["metrics"]["test"], run.config.model
    calibration = evaluation["calibration"]
    prior = Prior.model_validate(evaluation["prior"])
    plan = SamplingPlan.model_validate(run.read_json("sampling.json"))
    facts = {
        "name": run.config.name,
        "negative": entry.classes[0],
        "positive": entry.classes[1],
        "rate": plan.natural_share[1],
        "trained": plan.trained_share[1],
        "correction": prior.on_outputs(1)[0],
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
    return _CARD.format(**calibration["after"] | test | evaluation["losses"] | entry.tree() | facts)
