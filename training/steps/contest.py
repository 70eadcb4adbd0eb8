"""A run's candidate against a champion, on the run's test images."""

import numpy as np

from training import champion, network
from training.champion import Champion
from training.comparison import compare, served_logits
from training.errors import ConfigError, StoreError, received
from training.logits import in_batches, inference_logits
from training.run_folder import Run
from training.sampling import Prior
from training.steps.inputs import labelled_split, raw_images
from training.store import Store
from training.verdict import Comparison


def against(
    run: Run,
    store: Store,
    entry: Champion,
    candidate: np.ndarray,
    labels: np.ndarray,
    answers: np.ndarray | None = None,
) -> Comparison:
    """Compare the candidate's logits (n, outputs) with what the champion answers to the same images.

    `answers` are the champion's, where it has been asked already.

    Raises:
        ConfigError: the champion tells other classes apart.
        StoreError: its model is missing or damaged, or answers with what are no numbers.
    """
    if entry.classes != run.config.data.classes:
        raise ConfigError(received("store.champion", entry.classes, f"a champion of {run.config.data.classes}"))
    logits = _asked(run, store, entry) if answers is None else answers
    if not np.isfinite(logits).all():
        raise StoreError(received(store.uri(entry.model), "answers that are not finite", "logits"))
    settings = run.config.evaluate
    return compare(entry.number, logits, candidate, labels, resamples=settings.resamples, seed=run.config.seed)


def _asked(run: Run, store: Store, entry: Champion) -> np.ndarray:
    model = network.from_bytes(champion.read_model(store, entry))
    return served_logits(model, raw_images(run, "test"))


def candidate_logits(run: Run, prior: Prior) -> tuple[np.ndarray, np.ndarray]:
    """The evaluated model's corrected logits (n, outputs) of the test images, and their class numbers."""
    pixels, labels = labelled_split(run, "test")
    classifier = network.from_bytes(run.store.read("recalibrated/model.keras"))
    return prior.corrected(in_batches(inference_logits(classifier), pixels, 64)), labels
