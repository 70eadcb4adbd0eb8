import numpy as np
import pytest

from training.logits import probabilities
from training.metrics import best_threshold, binary_metrics, served_metrics
from training.sampling import Prior


@pytest.fixture
def answers():
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 300)
    return (random.normal(size=300) + 2 * labels - 1)[:, None], labels


def test_roc_auc_is_the_share_of_pairs_in_order(answers):
    logits, labels = answers
    positive, negative = logits[labels == 1, 0], logits[labels == 0, 0]
    truth = (positive[:, None] > negative).mean()
    found = binary_metrics(logits, labels, 0.5, seed=0)
    assert found["roc_auc"] == pytest.approx(truth)
    low, high = found["roc_auc_interval"]
    assert low < truth < high


def test_decisions_are_counted_at_the_threshold(answers):
    logits, labels = answers
    found = binary_metrics(logits, labels, 0.5, seed=0)
    decided = logits[:, 0] >= 0
    assert found["confusion"]["tp"] == (decided & (labels == 1)).sum()
    assert found["accuracy"] == pytest.approx((decided == labels).mean())
    assert found["loss"] == pytest.approx(np.log1p(np.exp(np.where(labels, -1, 1) * logits[:, 0])).mean())


def test_the_interval_of_the_loss_is_as_wide_as_its_standard_error_says(answers):
    logits, labels = answers
    losses = np.log1p(np.exp(np.where(labels, -1, 1) * logits[:, 0]))
    variances = [losses[labels == label].var() * (labels == label).sum() for label in (0, 1)]
    low, high = binary_metrics(logits, labels, 0.5, seed=0)["loss_interval"]
    assert (low + high) / 2 == pytest.approx(losses.mean(), rel=0.03)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(sum(variances)) / len(labels), rel=0.1)


def test_the_threshold_separates_best(answers):
    logits, labels = answers
    scores = 1 / (1 + np.exp(-logits[:, 0]))

    def youden(threshold):
        return (scores[labels == 1] >= threshold).mean() - (scores[labels == 0] >= threshold).mean()

    assert youden(best_threshold(scores, labels)) == pytest.approx(max(youden(score) for score in scores))


def test_the_threshold_is_chosen_on_validation_of_what_is_served(answers):
    """Training and test images have no say, and the correction moves it: the same images are positive."""
    logits, labels = answers
    prior = Prior(shift=(0.3, -0.6), method="analytic")
    raw = {"train": np.sort(logits, axis=0), "validation": logits, "test": logits[::-1]}
    found = served_metrics(raw, dict.fromkeys(raw, labels), prior, 0, ("a", "b"))
    served = probabilities(logits - 0.9)[:, 0]
    assert found["threshold"] == best_threshold(served, labels)
    plain = probabilities(logits)[:, 0]
    np.testing.assert_array_equal(served >= found["threshold"], plain >= best_threshold(plain, labels))
    assert found["metrics"]["validation"]["confusion"]["tp"] == (served >= found["threshold"])[labels == 1].sum()
    assert found["calibration"]["after"]["log_loss"] == pytest.approx(found["metrics"]["test"]["loss"])
    assert found["calibration"]["before"]["mean_predicted"] == pytest.approx(plain.mean())


def test_nothing_is_said_of_logits_that_are_not_finite(answers):
    logits, labels = answers
    raw = {"train": logits, "validation": logits, "test": logits * np.nan}
    assert served_metrics(raw, dict.fromkeys(raw, labels), Prior(shift=(0, 0), method="analytic"), 0, ("a", "b")) == {}
