import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from training.comparison import compare


def test_the_difference_is_paired():
    """Two models that err on the same images differ with far more certainty than each loss is known."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 400)
    champion = (random.normal(size=400) * 3 + labels)[:, None]
    candidate = champion + np.where(labels, -0.1, 0.1)[:, None]
    found = compare(7, champion, candidate, labels, resamples=500, seed=0)
    assert found.number == 7
    assert found.difference == pytest.approx(found.candidate_loss - found.champion_loss)
    assert 0 < found.interval[0] < found.difference < found.interval[1]
    assert np.ptp(found.interval) < 0.02


def test_a_model_equals_itself():
    logits, labels = np.linspace(-1, 1, 50)[:, None], np.arange(50) % 2
    found = compare(1, logits, logits, labels, resamples=200, seed=0)
    assert found.interval == (0, 0) and found.candidate_roc_auc == found.champion_roc_auc


def test_several_classes_are_ranked_each_against_the_rest():
    random = np.random.default_rng(0)
    labels = np.arange(90) % 3
    champion = random.normal(size=(90, 3)) + np.eye(3)[labels]
    found = compare(1, champion, champion + np.eye(3)[labels], labels, resamples=200, seed=0)
    chances = np.exp(champion) / np.exp(champion).sum(axis=1, keepdims=True)
    assert found.champion_roc_auc == pytest.approx(roc_auc_score(labels, chances, multi_class="ovr"))
    assert found.candidate_roc_auc > found.champion_roc_auc and found.interval[1] < 0
