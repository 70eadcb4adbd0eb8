import time

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from training.bootstrap import weights_within_classes
from training.ranking_curves import RESAMPLES, each_class, precision_recall, roc


def answers(images=300, seed=0, decimals=2):
    """Labels and scores with many ties."""
    random = np.random.default_rng(seed)
    labels = (random.random(images) < 0.3).astype(int)
    return labels, np.round(1 / (1 + np.exp(-random.normal(2 * labels - 1, 1.5))), decimals)


@pytest.mark.parametrize("decimals", [1, 2, 9])
def test_areas_are_those_of_scikit_learn(decimals):
    labels, scores = answers(decimals=decimals)
    assert roc("x", labels, scores).area == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    expected = average_precision_score(labels, scores)
    assert precision_recall("x", labels, scores).area == pytest.approx(expected, abs=1e-12)


def test_curves_are_those_of_scikit_learn():
    labels, scores = answers()
    found = roc("x", labels, scores)
    x, y, _ = roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose([found.x, found.y], [x, y])
    found = precision_recall("x", labels, scores)
    precision, recall, _ = precision_recall_curve(labels, scores)
    # It goes the other way, and ends where nothing is claimed.
    np.testing.assert_allclose([found.x[1:], found.y[1:]], [recall[-2::-1], precision[-2::-1]])


def test_bands_are_of_images_drawn_within_each_class():
    """Against the slow way: every resample written out and handed to scikit-learn."""
    labels, scores = answers(80)
    random, areas, recalls = np.random.default_rng(5), [], []
    for _ in range(RESAMPLES):
        times = weights_within_classes(labels, 1, random)[0].astype(int)
        drawn_labels, drawn = np.repeat(labels, times), np.repeat(scores, times)
        assert drawn_labels.sum() == labels.sum()
        areas.append(roc_auc_score(drawn_labels, drawn))
        recalls.append(np.interp(0.33, *roc_curve(drawn_labels, drawn, drop_intermediate=False)[:2]))
    found = roc("x", labels, scores, seed=5)
    np.testing.assert_allclose(found.interval, np.quantile(areas, [0.025, 0.975]))
    place = np.argmin(np.abs(found.grid - 0.33))
    np.testing.assert_allclose([found.low[place], found.high[place]], np.quantile(recalls, [0.025, 0.975]))


def test_the_interval_is_as_wide_as_theory_says():
    """DeLong et al. 1988: the variance of an area from its placements, in closed form."""
    labels, scores = answers(600, decimals=9)
    wins = (scores[labels == 1][:, None] > scores[labels == 0]).astype(float)
    variance = wins.mean(axis=1).var(ddof=1) / len(wins) + wins.mean(axis=0).var(ddof=1) / wins.shape[1]
    low, high = roc("x", labels, scores).interval
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(variance), rel=0.15)


def test_perfect_and_ignorant_scores():
    labels = np.array([0] * 6 + [1] * 4)
    perfect = roc("x", labels, labels * 0.5)
    assert (perfect.area, perfect.interval) == (1, (1, 1)) and perfect.low[1:].min() == 1
    assert precision_recall("x", labels, labels * 0.5).interval == (1, 1)
    one_score = np.full(10, 0.7)
    assert roc("x", labels, one_score).interval == (0.5, 0.5)
    ignorant = precision_recall("x", labels, one_score)
    assert ignorant.area == pytest.approx(0.4) and ignorant.interval == pytest.approx((0.4, 0.4))
    np.testing.assert_allclose([ignorant.low, ignorant.high], 0.4)
    assert ignorant.chance == (0.4, 0.4)


@pytest.mark.parametrize("label", [0, 1])
def test_without_images_of_both_kinds_there_is_no_curve(label):
    labels, scores = np.full(5, label), np.linspace(0, 1, 5)
    assert roc("x", labels, scores) is None and precision_recall("x", labels, scores) is None


def test_each_class_against_the_rest_but_not_one_that_is_absent():
    labels = np.array([0, 0, 2, 2])
    scores = np.array([[0.8, 0.1, 0.1], [0.4, 0.3, 0.3], [0.5, 0.2, 0.3], [0.1, 0.1, 0.8]])
    found = each_class(roc, ("a", "b", "c"), scores, labels, 0)
    assert [(curve.name, curve.area) for curve in found] == [("a or not", 0.75), ("c or not", 0.875)]
    assert [curve.name for curve in each_class(roc, ("a", "b"), scores[:, :1], labels // 2, 0)] == ["b"]


def test_equal_seeds_give_equal_bands_and_little_time_goes_by():
    labels, scores = answers(5000, decimals=9)
    begun = time.process_time()
    one = roc("x", labels, scores, seed=1)
    assert time.process_time() - begun < 2  # about 0.3 s where this was written
    assert np.array_equal(one.low, roc("x", labels, scores, seed=1).low)
    assert not np.array_equal(one.low, roc("x", labels, scores, seed=2).low)
    assert len(one.x) <= 400 and one.area == pytest.approx(roc_auc_score(labels, scores))
