"""The model card that is stored beside a champion."""

from typing import Any

from training.champion import Champion
from training.run_folder import Run

_CARD = """\
# {name}, champion {number}

- **Task**: tell `{positive}` from `{negative}` in images; input uint8 N×H×W×3 RGB of any size, output the probability
  of `{positive}` at its natural rate in the training data ({rate:.1%}).
- **Network**: {backbone} ({weights} weights), {size}×{size} pixels inside, policy `{policy}`.
- **Decision**: `{positive}` at or above {threshold:.3f}, chosen on validation (Youden's J).
- **BatchNorm**: {batch_norm}.
- **Test** ({images} images): ROC AUC {auc:.3f} (95 % interval {low:.3f} to {high:.3f}), loss {loss:.3f},
  precision {precision:.3f}, recall {recall:.3f}.
- **Training against evaluation**: fit loss {fit:.3f}, served {served:.3f} on training images.
- **From**: run `{run}`; SHA-256 of the model `{sha256}`; promoted {promoted_at}.

Load it with `keras.saving.load_model("model.keras", safe_mode=True)`.
"""


def model_card(run: Run, entry: Champion) -> str:
    """Markdown made from the run's own files."""
    evaluation: dict[str, Any] = run.read_json("evaluation.json")
    test, settings = evaluation["metrics"]["test"], run.config.model
    shares: Any = run.read_json("sampling.json")["natural_share"]
    facts = {
        "name": run.config.name,
        "negative": entry.classes[0],
        "positive": entry.classes[1],
        "rate": shares[1],
        "backbone": settings.backbone,
        "weights": settings.weights or "random",
        "size": settings.input_size,
        "policy": settings.policy,
        "batch_norm": run.read_json("batch_norm.json")["reason"],
        "auc": test["roc_auc"],
        "low": test["roc_auc_interval"][0],
        "high": test["roc_auc_interval"][1],
    }
    return _CARD.format(**test | evaluation["losses"] | entry.tree() | facts)
