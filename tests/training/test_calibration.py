import numpy as np
import pytest
from scipy.stats import binomtest

from training.calibration import (
    Reliability,
    calibration,
    fitted_intercept,
    fitted_intercepts,
    reliability,
    serving_prior,
)
from training.errors import DataRejected
from training.logits import cross_entropies, probabilities
from training.sampling import make_plan, prior_shift


@pytest.fixture
def answers():
    """Logits that are right but for a constant: the truth is 1.3 lower."""
    random = np.random.default_rng(0)
    logits = random.normal(1, 2, (500, 1))
    return logits, (random.random(500) < probabilities(logits - 1.3)[:, 0]).astype(np.int64)


def plan(strategy="oversample"):
    labels = {f"{number:03d}": "rare" if number < 30 else "common" for number in range(100)}
    return make_plan(labels, ("common", "rare"), strategy=strategy, batch_size=16, seed=0)


def test_one_logit_for_all_gives_the_shares_log_odds():
    labels = np.arange(40) % 4 == 0
    assert fitted_intercept(np.full((40, 1), 2.5), labels) == pytest.approx(np.log(0.25 / 0.75) - 2.5)


def test_the_constant_is_the_most_likely_of_a_grid(answers):
    logits, labels = answers
    grid = np.linspace(-5, 5, 20001)
    likeliest = grid[np.argmin([cross_entropies(logits + constant, labels).mean() for constant in grid])]
    assert fitted_intercept(logits, labels) == pytest.approx(likeliest, abs=5e-4)
    assert fitted_intercept(logits, labels) == pytest.approx(-1.3, abs=0.3)


def test_the_mean_probability_becomes_the_observed_share(answers):
    logits, labels = answers
    fitted = probabilities(logits + fitted_intercept(logits, labels))
    assert fitted.mean() == pytest.approx(labels.mean(), abs=1e-12)


@pytest.mark.parametrize("constant", [-40.0, 0.7, 300.0])
def test_a_constant_on_all_logits_is_taken_off_again(answers, constant):
    logits, labels = answers
    assert fitted_intercept(logits + constant, labels) == pytest.approx(fitted_intercept(logits, labels) - constant)


def test_extreme_logits_still_have_a_root():
    logits, labels = np.array([[-1e4], [1e4], [1e4], [-1e4]]), np.array([0, 1, 0, 0])
    assert probabilities(logits + fitted_intercept(logits, labels)).mean() == pytest.approx(0.25)


@pytest.mark.parametrize("label", [0, 1])
def test_validation_of_one_class_is_one_clear_line(label):
    with pytest.raises(DataRejected, match=f"validation: received 'images of class {label} only', expected both"):
        fitted_intercept(np.zeros((5, 1)), np.full(5, label))


def test_statistics_of_natural_images_need_a_fit(answers):
    logits, labels = answers
    prior = serving_prior(plan(), natural_statistics=True, logits=logits, labels=labels)
    assert prior.method == "fitted_on_validation"
    assert prior.shift == (0.0, fitted_intercept(logits, labels))


@pytest.mark.parametrize(
    ("strategy", "natural_statistics", "constant"),
    [("oversample", False, 0), ("none", True, 0), ("oversample", True, np.nan)],
)
def test_otherwise_the_shift_is_analytic(answers, strategy, natural_statistics, constant):
    """A model trained on natural images already fits natural statistics; logits that are not finite fit nothing."""
    logits, labels = answers[0] + constant, answers[1]
    prior = serving_prior(plan(strategy), natural_statistics=natural_statistics, logits=logits, labels=labels)
    assert prior.method == "analytic" and prior.shift == prior_shift(plan(strategy))


def test_calibration_is_numpys(answers):
    logits, labels = answers
    scores = 1 / (1 + np.exp(-logits[:, 0]))
    found = calibration(logits, labels)
    assert found["log_loss"] == pytest.approx(-np.log(np.where(labels, scores, 1 - scores)).mean())
    assert found["brier"] == pytest.approx(((scores - labels) ** 2).mean())
    assert found["mean_predicted"] == pytest.approx(scores.mean())
    assert found["observed_share"] == labels.mean()
    order = np.argsort(scores).reshape(10, 50)
    error = np.abs(scores[order].mean(axis=1) - labels[order].mean(axis=1)).mean()
    assert found["expected_calibration_error"] == pytest.approx(error)
    assert (found["images"], found["binning"], found["bins"]) == (500, "equal_count", 10)


def test_correction_calibrates(answers):
    logits, labels = answers
    before, after = calibration(logits, labels), calibration(logits + fitted_intercept(logits, labels), labels)
    for name in ("log_loss", "brier", "expected_calibration_error"):
        assert after[name] < before[name]


def test_bins_hold_equal_counts_and_there_is_at_most_one_an_image():
    scores, labels = np.linspace(0, 1, 23), np.arange(23) % 2
    assert np.ptp(reliability(scores, labels).images) <= 1
    assert reliability(scores[:3], labels[:3]).images.tolist() == [1, 1, 1]


@pytest.mark.parametrize(("positive", "images"), [(0, 7), (3, 7), (7, 7), (40, 52)])
def test_intervals_are_wilsons(positive, images):
    low, high = Reliability(np.array([0.5]), np.array([positive / images]), np.array([images])).intervals
    truth = binomtest(positive, images).proportion_ci(0.95, method="wilson")
    assert (low[0], high[0]) == pytest.approx((truth.low, truth.high), abs=1e-12)


@pytest.fixture
def graded():
    """Logits (600, 3) that are right but for a constant on each class."""
    random = np.random.default_rng(1)
    logits = random.normal(size=(600, 3)) * 2
    chances = probabilities(logits + np.array([0.0, -2.0, 1.5]))
    return logits, (random.random((600, 1)) > chances.cumsum(axis=1)[:, :2]).sum(axis=1)


def test_each_classs_mean_probability_becomes_its_share(graded):
    logits, labels = graded
    constants = fitted_intercepts(logits, labels)
    assert constants[0] == 0 and constants == pytest.approx([0, -2, 1.5], abs=0.3)
    shares = np.bincount(labels) / len(labels)
    np.testing.assert_allclose(probabilities(logits + constants).mean(axis=0), shares, atol=1e-8)


def test_two_of_the_same_are_the_binary_constant(answers):
    """A sigmoid's logit is the difference of a softmax's two."""
    logits, labels = answers
    pair = np.hstack([np.zeros_like(logits), logits])
    assert fitted_intercepts(pair, labels)[1] == pytest.approx(fitted_intercept(logits, labels), abs=1e-7)


@pytest.mark.parametrize("constants", [[0, 40, -3], [0, 300, -300], [5, 5, 5]])
def test_constants_on_all_logits_are_taken_off_again(graded, constants):
    logits, labels = graded
    expected = fitted_intercepts(logits, labels) - constants + constants[0]
    assert fitted_intercepts(logits + constants, labels) == pytest.approx(expected, abs=1e-6)


def test_logits_of_one_value_give_the_shares_log_odds():
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    assert fitted_intercepts(np.full((100, 3), 1.5), labels) == pytest.approx(np.log([1, 0.6, 0.4]), abs=1e-8)


def test_a_class_that_validation_lacks_is_one_clear_line(graded):
    with pytest.raises(DataRejected, match="validation: received 'no image of class 2', expected every class"):
        fitted_intercepts(graded[0], np.minimum(graded[1], 1))


def test_statistics_of_natural_images_are_those_trained_on_where_only_the_loss_is_weighted(graded):
    logits, labels = graded
    names = {f"{place:03d}": "abc"[label] for place, label in enumerate(labels)}
    for strategy, method in (("class_weight", "analytic"), ("undersample", "fitted_on_validation")):
        made = make_plan(names, "abc", strategy=strategy, batch_size=16, seed=0)
        prior = serving_prior(made, natural_statistics=True, logits=logits, labels=labels)
        assert prior.method == method and len(prior.shift) == 3


def test_several_classes_are_calibrated_by_their_top_label(graded):
    logits, labels = graded
    scores, found = probabilities(logits), calibration(logits, labels)
    right = scores.argmax(axis=1) == labels
    assert found["mean_confidence"] == pytest.approx(scores.max(axis=1).mean())
    assert found["accuracy"] == right.mean()
    order = np.argsort(scores.max(axis=1), kind="stable").reshape(10, 60)
    error = np.abs(scores.max(axis=1)[order].mean(axis=1) - right[order].mean(axis=1)).mean()
    assert found["expected_calibration_error"] == pytest.approx(error)
    assert found["binning"] == "equal_count_of_top_label_confidence"
    after = calibration(logits + fitted_intercepts(logits, labels), labels)
    assert all(after[name] < found[name] for name in ("log_loss", "brier", "expected_calibration_error"))
