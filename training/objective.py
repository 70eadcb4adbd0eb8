"""What `fit` minimises and counts: one sigmoid unit for two classes, a softmax unit a class for more."""

from collections.abc import Iterator

import keras
import numpy as np

from training.adam import adam
from training.evaluation import BARE_LOSS


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
    metrics = keras.metrics
    yield metrics.TruePositives(name="tp")
    yield metrics.FalsePositives(name="fp")
    yield metrics.TrueNegatives(name="tn")
    yield metrics.FalseNegatives(name="fn")
    yield metrics.BinaryAccuracy(name="accuracy")
    yield metrics.Precision(name="precision")
    yield metrics.Recall(name="recall")
    yield metrics.AUC(name="auc")
    yield metrics.AUC(name="prc", curve="PR")


def _of_several_classes(outputs: int) -> Iterator[keras.metrics.Metric]:
    """Means over the classes, each against the rest; accuracy decides by the largest probability."""
    metrics = keras.metrics
    yield metrics.CategoricalAccuracy(name="accuracy")
    yield metrics.F1Score(average="macro", name="f1")
    yield metrics.AUC(name="auc", multi_label=True, num_labels=outputs)
    yield metrics.AUC(name="prc", curve="PR", multi_label=True, num_labels=outputs)
