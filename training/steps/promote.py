"""Export the accepted model, check it, describe it, and make it the champion."""

import logging
from datetime import UTC, datetime

from training import champion, manifest, network
from training.champion import Champion
from training.data_summary import DataSummary
from training.errors import StoreError, Superseded, received
from training.evaluation import Evaluation
from training.exports import MODEL, Exports, export
from training.logits import in_batches, inference_logits, probabilities
from training.model_card import model_card
from training.objective import units
from training.provenance import code_commit
from training.retention import delete_outdated
from training.run_folder import Run
from training.sampling import Prior
from training.serving import serving_model
from training.steps.contest import against, candidate_logits
from training.steps.inputs import labelled_split, raw_images
from training.store import Store, open_store
from training.verdict import Comparison, Verdict, failure_of, worse_than
from training.warm_start import WarmStart
from training.who import who

log = logging.getLogger(__name__)
INPUTS = ("validation.json", "evaluation.json", "verdict.json", "recalibrated/model.keras")
OUTPUTS = ("promotion.json",)
_CHECKED = 64


def work(run: Run) -> None:
    verdict = Verdict.model_validate(run.read_json("verdict.json"))
    if not verdict.accepted:
        raise failure_of(verdict)
    store = open_store(run.config.store.champion)
    entry = _promoted_before(run, store) or _promote(run, store, verdict.champion)
    told = {"store": run.config.store.champion, "exports": run.read_json("exports.json")}
    run.write_json("promotion.json", entry.tree() | told)
    log.info("champion %d: %s", entry.number, store.uri(entry.model))
    _delete_outdated(run, store)


def _promoted_before(run: Run, store: Store) -> Champion | None:
    """The entry this run made before it was interrupted, if it got that far."""
    made_here = run.store.uri(), run.digest("evaluation.json")
    return next((old for old in champion.history(store) if (old.run, old.evaluation_sha256) == made_here), None)


def _promote(run: Run, store: Store, compared: Comparison | None) -> Champion:
    evaluation = Evaluation.model_validate(run.read_json("evaluation.json"))
    assert evaluation.prior is not None  # evaluate always leaves one
    exports = _export(run, evaluation.prior)
    files = dict(exports.files)
    head = champion.current(store)
    _refuse_worse(run, store, head, compared, evaluation.prior)
    entry = _entry(run, evaluation, files, 1 if head is None else head.number + 1)
    files["model_card.md"] = model_card(run, entry, exports)
    entry = entry.model_copy(update={"model": champion.stored_under(files), "files": champion.digests(files)})
    try:
        champion.publish(store, entry, files)
    except Superseded:
        if other := _promoted_before(run, store):  # this step, twice at once: the run is promoted all the same
            return other
        raise
    return entry


def _refuse_worse(run: Run, store: Store, head: Champion | None, met: Comparison | None, prior: Prior) -> None:
    """Compare once more if the champion is not the one that `evaluate` met."""
    number = None if met is None else met.number
    if head is None and number is not None:
        raise StoreError(received(store.uri(), "no champion", f"champion {number}, which `evaluate` met"))
    if head is None or head.number == number:
        return
    log.info("champion %d came after `evaluate`: comparing once more", head.number)
    found = against(run, store, head, *candidate_logits(run, prior))
    if reason := worse_than(found, run.config.gate):
        raise failure_of(Verdict(accepted=False, reasons=(reason,), champion=found))


def _delete_outdated(run: Run, store: Store) -> None:
    try:
        for folder in delete_outdated(store, run.config.store, datetime.now(UTC)):
            log.info("deleted %s, which is beyond store.keep_models and store.keep_days", store.uri(folder))
    except StoreError as error:  # the promotion stands
        log.warning("old models could not be deleted: %s", error.message)


def _export(run: Run, prior: Prior) -> Exports:
    """The served model's files, proven equal to the evaluated one on real images."""
    pixels, _ = labelled_split(run, "test")
    classifier = network.from_bytes(run.store.read("recalibrated/model.keras"))
    logits = in_batches(inference_logits(classifier), pixels[:_CHECKED], 64)
    model = serving_model(classifier, run.config.model.input_size, prior)
    exports = export(model, raw_images(run, "test", slice(_CHECKED)), probabilities(prior.corrected(logits)))
    log.info("exports: %s", ", ".join(f"{form} within {worst:.0e}" for form, worst in exports.differences.items()))
    run.write_json("exports.json", exports.report)
    return exports


def _entry(run: Run, evaluation: Evaluation, files: dict[str, bytes], number: int) -> Champion:
    exported = champion.digests(files)
    return Champion(
        number=number,
        model=champion.stored_under(files),
        sha256=exported[MODEL],
        files=exported,
        run=run.store.uri(),
        evaluation_sha256=run.digest("evaluation.json"),
        classes=run.config.data.classes,
        threshold=evaluation.threshold,
        test_loss=evaluation.metrics["test"]["loss"],
        test_roc_auc=evaluation.metrics["test"]["roc_auc"],
        data=DataSummary.model_validate(run.read_json("validation.json")["summary"]),
        data_sha256=manifest.digest(manifest.from_parquet(run.store.read("manifest.parquet"))),
        code=code_commit(),
        promoted_at=datetime.now(UTC).isoformat(timespec="seconds"),
        promoted_by=who(),
        prior_shift=_shift(evaluation, run.config.data.classes),
        warm_nights=_begun(run).nights,
    )


def _begun(run: Run) -> WarmStart:
    """Where its training began; a run of an earlier version does not say, and none went on from a champion."""
    return WarmStart.model_validate(run.read_json("checkpoint/steps.json").get("warm_start", {"reason": "unknown"}))


def _shift(evaluation: Evaluation, classes: tuple[str, ...]) -> tuple[float, ...]:
    assert evaluation.prior is not None  # evaluate always leaves one
    return tuple(evaluation.prior.on_outputs(units(len(classes))).tolist())
