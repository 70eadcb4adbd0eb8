"""Why a model evaluates differently from how it trained: the chain of losses from `fit` to validation."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.layers import BatchNormalization as BatchNorm

from training import bootstrap
from training.batchnorm import (
    Recalibrator,
    batch_norm_layers,
    batch_statistics,
    learning_layers,
    put_back,
    statistics_variables,
)
from training.evaluation import DIFFERENCES, GAPS, Evaluation, differences
from training.logits import Logits, batches, cross_entropies, in_batches, inference_logits, raw_output

Labelled = tuple[np.ndarray, np.ndarray]


def explain(
    model: keras.Model,
    x: np.ndarray,
    y: np.ndarray,
    *,
    fit_loss: float | np.ndarray | None = None,
    batch_size: int = 32,
    natural: Labelled | None = None,
    validation: Labelled | None = None,
    seed: int = 0,
    recalibrated: Mapping[str, np.ndarray] | None = None,
    serve_recalibrated: bool = True,
    resamples: int = 2000,
) -> Evaluation:
    """Measure each loss between what `fit` reported and what validation shows, and name what separates them.

    Model, statistics and random state are left as they were.

    Args:
        x, y: training images as trained on (oversampled, shuffled), shape (n, …), and their labels.
        fit_loss: the loss `fit` reported for these weights, best as its per-step values, shape (steps,).
        batch_size: of training; batch statistics depend on it.
        natural: training images as they come, each once.
        validation: images never trained on.
        recalibrated: BatchNorm statistics (see `statistics_of`) of the recalibrated model; by default measured on x.
        serve_recalibrated: whether these, or those the model came with, are what is served.

    Returns:
        Losses in nats, their differences and intervals; absent inputs give null terms.
    """
    with _restored(model, seed):
        rows = _row_losses(model, x, y, batch_size, recalibrated, natural, validation)
    ids = _image_ids({"list": x, "natural": natural and natural[0], "validation": validation and validation[0]})
    rows["served"] = rows["inference" if serve_recalibrated else "inference_before"]
    return _evaluation(rows, ids, fit_loss, samples=len(x), seed=seed, resamples=resamples)


def statistics_of(model: keras.Model) -> dict[str, np.ndarray]:
    """Every BatchNorm layer's moving statistics, by the variable's path."""
    return {variable.path: variable.numpy() for variable in statistics_variables(batch_norm_layers(model))}


def _row_losses(
    model: keras.Model,
    x: np.ndarray,
    y: np.ndarray,
    batch_size: int,
    recalibrated: Mapping[str, np.ndarray] | None,
    natural: Labelled | None,
    validation: Labelled | None,
) -> dict[str, np.ndarray | None]:
    """Cross-entropy of every row, under each way of running the network."""
    infer = inference_logits(model)
    layers = learning_layers(model)

    def loss(forward: Logits, data: Labelled | None) -> np.ndarray | None:
        return None if data is None else cross_entropies(in_batches(forward, data[0], batch_size), data[1])

    rows = {
        "train_mode": loss(_traced(model, layers, training=True), (x, y)),
        # Without BatchNorm that trains there is one way only to run without dropout.
        "batch_statistics": loss(_traced(model, layers, training=False) if layers else infer, (x, y)),
        "inference_before": loss(infer, (x, y)),
    }
    _use_recalibrated(model, x, batch_size, recalibrated)
    after = {"inference": (x, y), "natural": natural, "validation": validation}
    return rows | {name: loss(infer, data) for name, data in after.items()}


def _use_recalibrated(
    model: keras.Model, x: np.ndarray, batch_size: int, recalibrated: Mapping[str, np.ndarray] | None
) -> None:
    if recalibrated is None:
        Recalibrator(model).recalibrate(batches(x, batch_size))
    else:
        variables = statistics_variables(batch_norm_layers(model))
        put_back(variables, [recalibrated[variable.path] for variable in variables])


def _traced(model: keras.Model, layers: Sequence[BatchNorm], *, training: bool) -> Logits:
    """Logits with `layers` on batch statistics, and the rest in training or in inference mode."""

    @tf.function(reduce_retracing=True)
    def forward(batch: Any) -> Any:
        with raw_output(model), batch_statistics(layers):
            return model(batch, training=training)

    return forward


@contextmanager
def _restored(model: keras.Model, seed: int) -> Iterator[None]:
    """Put statistics and random state back afterwards; inside, dropout draws from `seed`."""
    generators = _seed_states(model)
    variables = [*model.non_trainable_variables, *generators]
    before = [variable.numpy() for variable in variables]
    try:
        for place, state in enumerate(generators):
            state.assign(np.array([seed, place << 16], dtype=state.dtype))
        yield
    finally:
        put_back(variables, before)


def _seed_states(model: keras.Model) -> list[Any]:
    states = {}
    for layer in model._flatten_layers():
        for generator in getattr(layer, "_seed_generators", []):
            states[id(generator.state)] = generator.state
    return list(states.values())


def _image_ids(images: Mapping[str, np.ndarray | None]) -> dict[str, np.ndarray]:
    """Number the unique images over all arrays, so that a duplicate is never taken for new evidence."""
    numbers: dict[bytes, int] = {}
    return {
        name: np.array([numbers.setdefault(hashlib.sha256(image.tobytes()).digest(), len(numbers)) for image in array])
        for name, array in images.items()
        if array is not None
    }


def _evaluation(
    rows: Mapping[str, np.ndarray | None],
    ids: Mapping[str, np.ndarray],
    fit_loss: float | np.ndarray | None,
    *,
    samples: int,
    seed: int,
    resamples: int,
) -> Evaluation:
    losses = {"fit": _mean(fit_loss)} | {name: _mean(values) for name, values in rows.items()}
    draws = _draws(rows, ids, fit_loss, seed, resamples)
    pairs = DIFFERENCES | GAPS
    spreads = draws | {name: _spread(draws, *pair) for name, pair in pairs.items()}
    finite = {name: None if values is None else bootstrap.interval(values) for name, values in spreads.items()}
    return Evaluation(
        losses=losses,
        causes=differences(losses, DIFFERENCES),
        gaps=differences(losses, GAPS),
        intervals=finite,
        samples=samples,
    )


def _draws(
    rows: Mapping[str, np.ndarray | None],
    ids: Mapping[str, np.ndarray],
    fit_loss: float | np.ndarray | None,
    seed: int,
    resamples: int,
) -> dict[str, np.ndarray | None]:
    """Resampled means of every loss; losses over the same images share their resamples, so differences are paired."""
    random = np.random.default_rng(seed)
    weights = bootstrap.image_weights(1 + max(int(array.max()) for array in ids.values()), resamples, random)
    draws: dict[str, np.ndarray | None] = {}
    for name, values in rows.items():
        usable = values is not None and np.isfinite(values).all()
        draws[name] = bootstrap.mean_draws(np.asarray(values), ids.get(name, ids["list"]), weights) if usable else None
    draws["fit"] = _fit_draws(fit_loss, resamples, random)
    return draws


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
