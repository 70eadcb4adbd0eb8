"""Why a model evaluates differently from how it trained: the chain of losses from `fit` to validation."""

import hashlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from training import bootstrap
from training.batchnorm import batch_norm_layers, statistics_variables
from training.evaluation import DIFFERENCES, GAPS, Evaluation, differences, dominant
from training.logits import class_numbers
from training.rows import Array
from training.telescope import WAYS, Labelled, Telescope

__all__ = ["WAYS", "Telescope", "conclude", "digests", "explain", "statistics_of"]


def explain(
    model: keras.Model | Telescope,
    x: np.ndarray,
    y: np.ndarray,
    *,
    fit_loss: float | np.ndarray | None = None,
    batch_size: int = 32,
    natural: Labelled | None = None,
    validation: Labelled | None = None,
    seed: int = 0,
    recalibrated: Mapping[str, np.ndarray] | None = None,
    serve_recalibrated: bool = False,
    augmented: np.ndarray | None = None,
    resamples: int = 2000,
) -> Evaluation:
    """Measure each loss between what `fit` reported and what validation shows, and name what separates them.

    Model, statistics and random state are left as they were.

    Args:
        model: or a `Telescope` of it, which traces it once however often it is explained.
        x, y: training images as trained on (oversampled, shuffled), shape (n, …), and their labels.
        fit_loss: the bare cross-entropy of training for these weights (see `StepLosses`), best as its per-step
            values, shape (steps,).
        batch_size: of training; batch statistics depend on it.
        natural: training images as they come, each once.
        validation: images never trained on.
        recalibrated: BatchNorm statistics (see `statistics_of`) of the recalibrated model; by default measured on x.
        serve_recalibrated: whether these, or those the model came with, are what is served.
        augmented: x as augmentation in the input pipeline changes it, for the loss in training mode.

    Returns:
        Losses in nats, their differences and intervals; absent inputs give null terms.
    """
    telescope = model if isinstance(model, Telescope) else Telescope(model)
    rows = telescope.row_losses(
        (x, y),
        batch_size,
        seed=seed,
        recalibrated=recalibrated,
        natural=natural,
        validation=validation,
        augmented=augmented,
    )
    given = {"list": (x, y), "natural": natural, "validation": validation}
    shown = {name: (digests(pair[0]), pair[1]) for name, pair in given.items() if pair is not None}
    return conclude(
        rows, shown, fit_loss=fit_loss, serve_recalibrated=serve_recalibrated, seed=seed, resamples=resamples
    )


def conclude(
    rows: Mapping[str, np.ndarray | None],
    shown: Mapping[str, Labelled],
    *,
    fit_loss: float | np.ndarray | None,
    serve_recalibrated: bool,
    seed: int,
    resamples: int,
) -> Evaluation:
    """What `explain` says, from the losses of every row.

    Args:
        rows: as `Telescope.row_losses` gives them.
        shown: which images they are, as `digests`, and their labels: of the ``list``, ``natural`` and ``validation``.
    """
    served = rows["inference" if serve_recalibrated else "inference_before"]
    return _evaluation({**rows, "served": served}, _Images(shown), fit_loss, seed=seed, resamples=resamples)


def digests(x: Array) -> np.ndarray:
    """SHA-256 of each row's content, uint8 (n, 32)."""
    found = b"".join(hashlib.sha256(row.tobytes()).digest() for row in x)
    return np.frombuffer(found, np.uint8).reshape(-1, 32)


def statistics_of(model: keras.Model) -> dict[str, np.ndarray]:
    """Every BatchNorm layer's moving statistics, by the variable's path."""
    return {variable.path: variable.numpy() for variable in statistics_variables(batch_norm_layers(model))}


class _Images:
    """Which image each row shows, numbered over all arrays so that a duplicate is never taken for new evidence."""

    def __init__(self, shown: Mapping[str, Labelled]) -> None:
        self._numbers: dict[bytes, int] = {}
        self.ids = {name: np.array([self._number(row) for row in found]) for name, (found, _) in shown.items()}
        self.classes = {name: class_numbers(y) for name, (_, y) in shown.items()}

    def __len__(self) -> int:
        return len(self._numbers)

    def _number(self, digest: np.ndarray) -> int:
        return self._numbers.setdefault(digest.tobytes(), len(self._numbers))


def _evaluation(
    rows: Mapping[str, np.ndarray | None],
    images: _Images,
    fit_loss: float | np.ndarray | None,
    *,
    seed: int,
    resamples: int,
) -> Evaluation:
    losses = {"fit": _mean(fit_loss)} | {name: _mean(values) for name, values in rows.items()}
    draws = _draws(rows, images, fit_loss, seed, resamples)
    pairs = DIFFERENCES | GAPS
    spreads = draws | {name: _spread(draws, *pair) for name, pair in pairs.items()}
    finite = {name: None if values is None else bootstrap.interval(values) for name, values in spreads.items()}
    causes = differences(losses, DIFFERENCES)
    served_as_is = rows["served"] is rows["inference_before"]
    return Evaluation(
        losses=losses,
        causes=causes,
        dominant=dominant(causes, finite, lagging=served_as_is),
        absent=tuple(name for name, values in {**rows, "fit": fit_loss}.items() if values is None),
        gaps=differences(losses, GAPS),
        intervals=finite,
        samples=len(images.ids["list"]),
    )


def _draws(
    rows: Mapping[str, np.ndarray | None],
    images: _Images,
    fit_loss: float | np.ndarray | None,
    seed: int,
    resamples: int,
) -> dict[str, np.ndarray | None]:
    """Resampled means of every loss; losses over the same images share their resamples, so differences are paired."""
    random = np.random.default_rng(seed)
    usable = {name: values for name, values in rows.items() if values is not None and np.isfinite(values).all()}
    parts: dict[str, list[np.ndarray]] = {name: [] for name in usable}
    for weights in bootstrap.image_weight_blocks(len(images), resamples, random):
        for name, values in usable.items():
            shown = name if name in images.ids else "list"
            parts[name].append(bootstrap.mean_draws(values, images.ids[shown], images.classes[shown], weights))
    draws = dict.fromkeys(rows) | {name: np.concatenate(found) for name, found in parts.items()}
    return draws | {"fit": _fit_draws(fit_loss, resamples, random)}


def _fit_draws(fit_loss: float | np.ndarray | None, resamples: int, random: np.random.Generator) -> np.ndarray | None:
    if fit_loss is None or not np.isfinite(fit_loss).all():
        return None
    return bootstrap.block_mean_draws(np.atleast_1d(np.asarray(fit_loss, np.float64)), resamples, random)


def _spread(draws: Mapping[str, np.ndarray | None], start: str, end: str) -> np.ndarray | None:
    first, last = draws[start], draws[end]
    return None if first is None or last is None else last - first


def _mean(values: Any) -> float | None:
    if values is None:
        return None
    mean = float(np.mean(np.asarray(values, np.float64)))
    return mean if np.isfinite(mean) else None
