import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from training import bootstrap
from training.comparison import LEVEL, area_draws, compare
from training.logits import probabilities


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
    assert found.interval == (0, 0) == found.roc_auc_interval
    assert found.roc_auc_difference == 0 and found.images == 50


def test_several_classes_are_ranked_each_against_the_rest():
    random = np.random.default_rng(0)
    labels = np.arange(90) % 3
    champion = random.normal(size=(90, 3)) + np.eye(3)[labels]
    found = compare(1, champion, champion + np.eye(3)[labels], labels, resamples=200, seed=0)
    chances = np.exp(champion) / np.exp(champion).sum(axis=1, keepdims=True)
    assert found.champion_roc_auc == pytest.approx(roc_auc_score(labels, chances, multi_class="ovr"))
    assert found.candidate_roc_auc > found.champion_roc_auc and found.interval[1] < 0
    assert found.roc_auc_difference == found.candidate_roc_auc - found.champion_roc_auc
    assert found.roc_auc_interval[0] < found.roc_auc_difference < found.roc_auc_interval[1]


@pytest.mark.parametrize("outputs", [1, 3])
def test_areas_of_draws_are_scikit_learns(outputs):
    """On images repeated as often as they were drawn, ties included."""
    random = np.random.default_rng(0)
    labels = np.arange(60) % max(outputs, 2)
    logits = np.round(random.normal(size=(60, outputs)) + labels[:, None] % 2, 1)
    weights = bootstrap.weights_within_classes(labels, 20, random)
    for drawn, found in zip(weights.astype(int), area_draws(logits, labels, weights), strict=True):
        rows = np.repeat(np.arange(60), drawn)
        scores = logits[rows, 0] if outputs == 1 else probabilities(logits[rows])
        assert found == pytest.approx(roc_auc_score(labels[rows], scores, multi_class="ovr"))


def test_both_models_are_measured_on_the_same_draw():
    """Swapping the models turns the intervals round."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 200)
    one, other = (random.normal(labels, 1)[:, None] for _ in range(2))
    there, back = (compare(1, *pair, labels, resamples=300, seed=0) for pair in ((one, other), (other, one)))
    assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]))
    assert there.roc_auc_interval == pytest.approx((-back.roc_auc_interval[1], -back.roc_auc_interval[0]))


def test_the_order_of_the_images_does_not_matter():
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 300)
    models = [random.normal(labels, 1.5)[:, None] for _ in range(2)]
    order = random.permutation(300)
    found = compare(1, *models, labels, resamples=2000, seed=0)
    shuffled = compare(1, *(model[order] for model in models), labels[order], resamples=2000, seed=0)
    assert shuffled.difference == pytest.approx(found.difference)
    assert shuffled.interval == pytest.approx(found.interval, abs=0.02)
    assert shuffled.roc_auc_interval == pytest.approx(found.roc_auc_interval, abs=0.01)


def test_the_bad_ends_bound_the_truth_as_often_as_they_say():
    """Of 100 test sets from models whose true differences are known, about one in twenty is misjudged each way."""
    random = np.random.default_rng(0)
    pool = _two_models(random, 200_000)
    truth = compare(1, *pool, resamples=1, seed=0)
    drawn = [compare(1, *_two_models(random, 400), resamples=200, seed=0) for _ in range(100)]
    for of, name in (
        (lambda found: found.interval, "difference"),
        (lambda found: found.roc_auc_interval, "roc_auc_difference"),
    ):
        above = np.mean([of(found)[1] < truth[name] for found in drawn])
        below = np.mean([of(found)[0] > truth[name] for found in drawn])
        assert 0 < above < 0.11 and 0 < below < 0.11, (name, above, below)
    assert LEVEL == 0.90


def _two_models(random, images):
    """Logits of a champion and a slightly worse candidate, which err alike, and the labels."""
    labels = np.arange(images) % 2
    common = random.normal(size=images) + 2 * labels - 1
    return common[:, None], (common + random.normal(size=images) * 0.5)[:, None], labels
