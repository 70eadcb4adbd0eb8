import numpy as np
import pytest

from training.metrics import best_threshold, binary_metrics


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


def test_the_threshold_separates_best(answers):
    logits, labels = answers
    scores = 1 / (1 + np.exp(-logits[:, 0]))

    def youden(threshold):
        return (scores[labels == 1] >= threshold).mean() - (scores[labels == 0] >= threshold).mean()

    assert youden(best_threshold(scores, labels)) == pytest.approx(max(youden(score) for score in scores))
