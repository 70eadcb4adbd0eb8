"""Nights as they are recorded, made up but plausible: most ship, some do not, statistics lag now and then."""

import json
import math
import random
from datetime import UTC, datetime, timedelta
from typing import Any

from training.config import load_config, to_json
from training.nights import Night, records_of
from training.run_folder import as_json, folder_name
from training.store import open_store

BEGAN = datetime(2024, 1, 1, 2, tzinfo=UTC)
MARKUP = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"
_FAILURES = [
    (3, "validate", "label_share_drift", "The share of defective is 0.62, expected 0.21 to 0.41."),
    (4, "evaluate", "batch_norm", "Training and evaluation diverged: served 1.71, fit 0.22, limit 0.47."),
    (4, "evaluate", "non_finite", "The loss became NaN at step 143 of epoch 2."),
    (5, "evaluate", "worse_than_champion", "The candidate's loss is up to 0.09 above the champion's."),
    (1, "train", "store", "s3://nights: the server did not answer within 60 seconds."),
]


def nights(count: int, seed: int = 0) -> list[tuple[str, Night]]:
    """(run id, night) from the oldest to the newest."""
    dice = random.Random(seed)
    return [_night(number, dice) for number in range(count)]


def keep(runs: str, name: str, found: list[tuple[str, Night]], *, folders: int = 0) -> None:
    """Write the nights' records, and the newest `folders` nights' documents."""
    records = records_of(runs, name)
    for _, night in found:
        records.write(f"{night.run}.json", as_json(night.tree()))
    for _, night in found[len(found) - folders :]:
        leave_documents(runs, name, night)


def leave_documents(runs: str, name: str, night: Night) -> None:
    store = open_store(f"{runs}/{name}/{night.run}")
    config = load_config("dags/models/solar_cells.yaml", {"seed": int(night.seconds), "store.runs": runs})
    store.write("config.json", to_json(config))
    store.write("data_docs/index.html", f"<h1>Data of {night.run}</h1>".encode())
    store.write("data_docs/validations/it.html", b"<p>validated</p>")
    if night.losses:
        store.write("report.html", f"<h1>Report of {night.run}</h1><script>document.title='owned'</script>".encode())


def _night(number: int, dice: random.Random) -> tuple[str, Night]:
    began = BEGAN + timedelta(days=number)
    run_id = f"scheduled__{began.isoformat()}"
    known: dict[str, Any] = {"run": folder_name(run_id), "began": began.isoformat(), "seconds": 140 + number % 60}
    chance = dice.random()
    if chance < 0.05:
        return run_id, Night(**known, outcome="skipped", step="validate", message="Nothing is new.")
    if chance < 0.17:
        return run_id, _failed(known, dice)
    promoted = chance > 0.8 or number == 0
    outcome = "promoted" if promoted else "accepted"
    champion = 1 + number // 5 if promoted else None
    return run_id, Night(**known, **_figures(dice, lag=0.08), outcome=outcome, exit_code=0, champion=champion)


def _failed(known: dict[str, Any], dice: random.Random) -> Night:
    code, step, cause, message = dice.choice(_FAILURES)
    figures = _figures(dice, lag=1.4, mended=cause != "batch_norm") if step == "evaluate" else {}
    failure = {"exit_code": code, "step": step, "cause": cause, "message": message}
    return Night(**known, **figures, outcome="failed", **failure)


def _figures(dice: random.Random, lag: float, *, mended: bool = True) -> dict[str, Any]:
    fit = round(0.25 + 0.08 * math.sin(dice.random() * 6) + 0.02 * dice.random(), 5)
    after = round(fit * (0.7 + 0.2 * dice.random()), 5)
    before = round(after + lag * (0.6 + dice.random()), 5)
    parts = {"moving_weights": -0.04, "stochastic_layers": -0.05, "small_batches": 0.02, "sampling": 0.01}
    causes = {name: round(value * (0.5 + dice.random()), 5) for name, value in parts.items()}
    return {
        "losses": {"fit": fit, "inference_before": before, "inference": after, "served": after if mended else before},
        "limit": round(fit + 0.25, 5),
        "causes": causes | {"generalization": round(0.15 * dice.random(), 5), "batch_norm": round(before - after, 5)},
        "roc_auc": (round(0.86 + 0.04 * dice.random(), 5), 0.85, 0.92),
        "images": 2600 + int(20 * dice.random()),
    }


def script_night() -> Night:
    """One whose every text is markup."""
    return Night(
        run="markup", began=BEGAN.isoformat(), outcome="failed", exit_code=1, step=MARKUP, cause=MARKUP, message=MARKUP
    )


def as_record(tree: dict[str, Any]) -> bytes:
    return json.dumps(tree).encode()
