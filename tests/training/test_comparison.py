import numpy as np
import pytest

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
