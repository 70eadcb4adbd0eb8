import keras
import numpy as np
import pytest

from training.objective import bare_loss, compile_classifier, targets

ROWS, BATCH = 96, 8


def rows(outputs):
    """Probabilities, and class numbers that follow them somewhat; some are on the threshold, for and against."""
    random = np.random.default_rng(0)
    raw = random.random((ROWS, outputs)).astype(np.float32)
    if outputs == 1:
        raw[:8] = 0.5
        return raw, (random.random(ROWS) < raw[:, 0]).astype(int)
    numbers = random.integers(0, outputs, ROWS)
    raw[np.arange(ROWS), numbers] += 0.3
    return raw / raw.sum(1, keepdims=True), numbers


class Passing(keras.layers.Layer):
    """Passes on what comes; it has a weight, so that Keras has something to train."""

    def build(self, shape):
        self.weight = self.add_weight(shape=(), initializer="zeros")

    def call(self, x):
        return x + 0 * self.weight


def fitted(outputs, steps_per_execution):
    """What Keras reports of an epoch in which nothing is learned, and of the same rows as validation."""
    x, numbers = rows(outputs)
    y = targets(numbers, outputs)
    model = keras.Sequential([keras.Input((outputs,)), Passing()])
    compile_classifier(model, 0.0, bare_loss(outputs), steps_per_execution)
    history = model.fit(x, y, BATCH, validation_data=(x[:40], y[:40]), shuffle=False, verbose=0).history
    return {name: value for name, (value,) in history.items()}, (x, y)


def of_keras(outputs):
    metrics = keras.metrics
    if outputs > 1:
        yield metrics.CategoricalAccuracy(name="accuracy")
        yield metrics.F1Score(average="macro", name="f1")
        yield metrics.AUC(name="auc", multi_label=True, num_labels=outputs)
        yield metrics.AUC(name="prc", curve="PR", multi_label=True, num_labels=outputs)
        return
    kinds = metrics.TruePositives, metrics.FalsePositives, metrics.TrueNegatives, metrics.FalseNegatives
    yield from (kind(name=name) for kind, name in zip(kinds, ("tp", "fp", "tn", "fn"), strict=True))
    yield metrics.BinaryAccuracy(name="accuracy")
    yield metrics.Precision(name="precision")
    yield metrics.Recall(name="recall")
    yield metrics.AUC(name="auc", num_thresholds=201)
    yield metrics.AUC(name="prc", num_thresholds=201, curve="PR")


@pytest.mark.parametrize("steps_per_execution", [1, 4])
@pytest.mark.parametrize("outputs", [1, 3])
def test_what_is_counted_once_is_what_metrics_of_keras_count_each(outputs, steps_per_execution):
    found, (x, y) = fitted(outputs, steps_per_execution)
    metrics = list(of_keras(outputs))
    for metric in metrics:
        metric.update_state(y, x)
        assert found[metric.name] == pytest.approx(float(metric.result()), rel=1e-5), metric.name
        metric.reset_state()
        metric.update_state(y[:40], x[:40])
        assert found[f"val_{metric.name}"] == pytest.approx(float(metric.result()), rel=1e-5), metric.name
    names = {"loss", "cross_entropy", *(metric.name for metric in metrics)}
    assert set(found) == names | {f"val_{name}" for name in names}


def test_one_half_is_not_yet_the_second_class():
    found, (x, y) = fitted(1, 1)
    decided = x > 0.5
    assert (decided != (x >= 0.5)).any()
    assert found["tp"] == (decided & (y == 1)).sum() and found["fn"] == (~decided & (y == 1)).sum()
    assert found["accuracy"] == pytest.approx((decided == (y == 1)).mean())


def test_before_any_answer_nothing_is_divided_by():
    model = keras.Sequential([keras.Input((1,)), Passing()])
    compile_classifier(model, 0.0, bare_loss(1))
    model.compute_metrics(None, np.zeros((0, 1)), np.zeros((0, 1)))
    found = model.get_metrics_result()["counts"]
    assert (found["accuracy"], found["precision"], found["recall"]) == (0, 0, 0)
