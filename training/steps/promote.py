"""Export the accepted model, check it, describe it, and make it the champion."""

import hashlib
import logging
from datetime import UTC, datetime

from training import champion, network
from training.champion import Champion
from training.data_summary import DataSummary
from training.errors import NightshiftError
from training.evaluation import Evaluation
from training.exports import MODEL, Exports, export
from training.logits import in_batches, inference_logits, probabilities
from training.model_card import model_card
from training.run_folder import Run
from training.sampling import Prior
from training.serving import serving_model
from training.steps.inputs import labelled_split, raw_images
from training.store import Store, open_store
from training.verdict import Verdict, failure_of

log = logging.getLogger(__name__)
INPUTS = ("validation.json", "evaluation.json", "verdict.json", "recalibrated/model.keras")
OUTPUTS = ("promotion.json",)
_CHECKED = 64


def work(run: Run) -> None:
    verdict = Verdict.model_validate(run.read_json("verdict.json"))
    if not verdict.accepted:
        raise failure_of(verdict)
    store = open_store(run.config.store.champion)
    entry = _promoted_before(run, store) or _promote(run, store)
    told = {"store": run.config.store.champion, "exports": run.read_json("exports.json")}
    run.write_json("promotion.json", entry.tree() | told)
    log.info("champion %d: %s", entry.number, store.uri(entry.model))


def _promoted_before(run: Run, store: Store) -> Champion | None:
    """The entry this run made before it was interrupted, if it got that far."""
    made_here = run.store.uri(), run.digest("evaluation.json")
    return next((old for old in champion.history(store) if (old.run, old.evaluation_sha256) == made_here), None)


def _promote(run: Run, store: Store) -> Champion:
    latest = champion.current(store)
    evaluation = Evaluation.model_validate(run.read_json("evaluation.json"))
    assert evaluation.prior is not None  # evaluate always leaves one
    exports = _export(run, evaluation.prior)
    entry = _entry(run, evaluation, exports.files[MODEL], 1 if latest is None else latest.number + 1)
    for name, content in exports.files.items():
        store.write(entry.model.replace(MODEL, name), content)
    store.write(entry.model.replace(MODEL, "model_card.md"), model_card(run, entry, exports))
    if not champion.append(store, entry):
        raise NightshiftError("promote: another run was promoted first", cause="superseded", remedy="Nothing to do.")
    return entry


def _export(run: Run, prior: Prior) -> Exports:
    """The served model's files, proven equal to the evaluated one on real images."""
    pixels, _ = labelled_split(run, "test")
    classifier = network.from_bytes(run.store.read("recalibrated/model.keras"))
    logits = in_batches(inference_logits(classifier), pixels[:_CHECKED], 64)
    model = serving_model(classifier, run.config.model.input_size, prior)
    exports = export(model, raw_images(run, "test", _CHECKED), probabilities(prior.corrected(logits)))
    log.info("exports: %s", ", ".join(f"{form} within {worst:.0e}" for form, worst in exports.differences.items()))
    run.write_json("exports.json", exports.report)
    return exports


def _entry(run: Run, evaluation: Evaluation, content: bytes, number: int) -> Champion:
    digest = hashlib.sha256(content).hexdigest()
    return Champion(
        number=number,
        model=f"models/{digest[:16]}/{MODEL}",
        sha256=digest,
        run=run.store.uri(),
        evaluation_sha256=run.digest("evaluation.json"),
        classes=run.config.data.classes,
        threshold=evaluation.threshold,
        test_loss=evaluation.metrics["test"]["loss"],
        test_roc_auc=evaluation.metrics["test"]["roc_auc"],
        data=DataSummary.model_validate(run.read_json("validation.json")["summary"]),
        promoted_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
