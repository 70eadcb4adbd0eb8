"""What `fit` minimises and counts: one sigmoid unit for two classes, a softmax unit a class for more."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from training.adam import adam
from training.evaluation import BARE_LOSS

# So many, evenly from 0 to 1, have one half among them, by which two classes are told apart.
_THRESHOLDS = 201


def units(classes: int) -> int:
    """How many output units tell that many classes apart."""
    return 1 if classes == 2 else classes


def targets(numbers: np.ndarray, outputs: int) -> np.ndarray:
    """Class numbers (n,) as what the outputs are compared with: float32 (n, outputs), one-hot if several."""
    if outputs == 1:
        return numbers.astype(np.float32)[:, None]
    return keras.utils.to_categorical(numbers, outputs).astype(np.float32)


def bare_loss(outputs: int) -> keras.metrics.Mean:
    """The cross-entropy, neither weighted nor penalised."""
    kind = keras.metrics.BinaryCrossentropy if outputs == 1 else keras.metrics.CategoricalCrossentropy
    return kind(name=BARE_LOSS)


def compile_classifier(
    model: keras.Model, learning_rate: float, bare: keras.metrics.Metric, steps_per_execution: int = 1
) -> None:
    """Compile with the cross-entropy of the model's outputs, and metrics with the bare loss first."""
    outputs = model.output_shape[-1]
    binary = outputs == 1
    model.compile(
        optimizer=adam(learning_rate),
        loss=keras.losses.BinaryCrossentropy() if binary else keras.losses.CategoricalCrossentropy(),
        metrics=[bare, *(_of_two_classes() if binary else _of_several_classes(outputs))],
        steps_per_execution=steps_per_execution,
    )


def _of_two_classes() -> Iterator[keras.metrics.Metric]:
    """Those of TensorFlow's tutorial on imbalanced data."""
    yield _counted(num_thresholds=_THRESHOLDS)


def _of_several_classes(outputs: int) -> Iterator[keras.metrics.Metric]:
    """Means over the classes, each against the rest; accuracy decides by the largest probability."""
    yield keras.metrics.CategoricalAccuracy(name="accuracy")
    yield keras.metrics.F1Score(average="macro", name="f1")
    yield _counted(multi_label=True, num_labels=outputs)


def _counted(**how: Any) -> keras.metrics.AUC:
    """All metrics that follow from how many answers are right and wrong at many thresholds, counted once.

    Counted by each of them, a head's first epoch takes half as long again. This is Keras's own metric, not of a class
    that whoever loads the model would have to have.
    """
    counts = keras.metrics.AUC(name="counts", **how)
    counts.result = partial(_results, counts, counts.result)
    return counts


def _results(counts: keras.metrics.AUC, roc_area: Callable[[], tf.Tensor]) -> dict[str, float]:
    """In the place of `result`; of what is in a dictionary, Keras takes each for a metric.

    It asks within every step, too, but what it reports of an epoch it asks at its end, outside the graph.
    """
    if tf.inside_function():
        return {}
    areas = {"auc": float(roc_area()), "prc": float(counts.interpolate_pr_auc())}
    return areas if counts.multi_label else _decisions(counts) | areas


def _decisions(counts: keras.metrics.AUC) -> dict[str, float]:
    """By the threshold of one half."""
    kinds = counts.true_positives, counts.false_positives, counts.true_negatives, counts.false_negatives
    tp, fp, tn, fn = (float(kind.numpy()[_THRESHOLDS // 2]) for kind in kinds)
    counted = {"tp": tp, "fp": fp, "tn": tn, "fn": fn}
    return counted | {
        "accuracy": (tp + tn) / max(tp + fp + tn + fn, 1),
        "precision": tp / max(tp + fp, 1),
        "recall": tp / max(tp + fn, 1),
    }
