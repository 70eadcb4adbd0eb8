import math

import numpy as np
import pytest

from training.errors import DataRejected
from training.sampling import SamplingPlan, make_plan, prior_shift

LABELS = {f"{number:03d}": "rare" if number < 30 else "common" for number in range(100)}


def plan(strategy="oversample", seed=0):
    return make_plan(LABELS, ("common", "rare"), strategy=strategy, batch_size=16, seed=seed)


def test_an_epoch_is_the_seeds_number_of_steps_half_of_each_class():
    made = plan()
    assert made.steps_per_epoch == math.ceil(2 * 70 / 16)
    shown = np.asarray(made.labels)[made.epoch(0)]
    assert len(shown) == made.steps_per_epoch * 16
    assert shown.mean() == 0.5


def test_every_image_appears_as_often_as_its_classmates_give_or_take_one():
    times = np.bincount(plan().epoch(3), minlength=100)
    labels = np.asarray(plan().labels)
    for label in (0, 1):
        assert np.ptp(times[labels == label]) <= 1
        assert times[labels == label].min() >= 1


def test_none_shows_images_as_they_come():
    made = plan("none")
    assert np.bincount(made.epoch(0), minlength=100).min() == 1
    assert made.trained_share == made.natural_share == (0.7, 0.3)
    assert prior_shift(made) == (0.0, 0.0)


def test_plan_is_reproducible_and_round_trips():
    made = SamplingPlan.model_validate_json(plan().model_dump_json())
    assert made == plan()
    np.testing.assert_array_equal(made.epoch(1), plan().epoch(1))
    assert not np.array_equal(made.epoch(0), made.epoch(1))
    assert not np.array_equal(made.epoch(0), made.epoch(0, "evaluate"))
    assert not np.array_equal(made.epoch(0), plan(seed=1).epoch(0))


def test_take_goes_on_into_further_epochs():
    made = plan()
    rows = made.steps_per_epoch * 16
    taken = made.take(rows + 5, "evaluate")
    np.testing.assert_array_equal(taken, np.concatenate([made.epoch(0, "evaluate"), made.epoch(1, "evaluate")[:5]]))


def test_natural_rows_are_different_images():
    rows = plan().natural(40, "natural")
    assert len(set(rows.tolist())) == 40
    assert len(plan().natural(500, "natural")) == 100


def test_prior_shift_undoes_oversampling():
    """Bayes: odds at the natural rate are odds at 50/50 times the natural odds."""
    shift = prior_shift(plan())
    assert shift[1] - shift[0] == pytest.approx(math.log(0.3 / 0.7))


GRADES = ("intact", "doubtful", "defective")
GRADED = {f"{number:03d}": GRADES[(number >= 50) + (number >= 80)] for number in range(90)}
STRATEGIES = ("oversample", "undersample", "class_weight", "none")


def graded(strategy, batch_size=6):
    return make_plan(GRADED, GRADES, strategy=strategy, batch_size=batch_size, seed=0)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("batch_size", [6, 7, 32])
def test_the_plan_says_how_often_each_image_appears(strategy, batch_size):
    made = graded(strategy, batch_size)
    assert [found.images for found in made.per_class] == [50, 30, 10]
    for number in range(4):
        times = made.times(number)
        np.testing.assert_array_equal(times, np.bincount(made.epoch(number), minlength=90))
        for label, found in enumerate(made.per_class):
            own = times[np.asarray(made.labels) == label]
            assert found.rows_per_epoch[0] <= own.sum() <= found.rows_per_epoch[1]
            assert (own.min(), own.max()) == found.times_per_epoch or made.rows_per_epoch == (made.rows,)
            assert found.times_per_epoch[0] <= own.min() and own.max() <= found.times_per_epoch[1]


def test_undersampling_shows_each_class_as_often_as_the_smallest_has_images():
    made = graded("undersample")
    labels = np.asarray(made.labels)
    epochs = [made.times(number) for number in range(20)]
    for times in epochs:
        assert [times[labels == label].sum() for label in range(3)] == [10, 10, 10]
        assert times.max() == 1
    assert not np.array_equal(epochs[0], epochs[1])
    assert (np.sum(epochs, axis=0) > 0).all()


def test_class_weights_make_the_classes_equal():
    """What scikit-learn calls balanced: a class's rows times their weight are the same for all."""
    from sklearn.utils.class_weight import compute_class_weight

    made = graded("class_weight")
    truth = compute_class_weight("balanced", classes=np.arange(3), y=np.asarray(made.labels))
    assert made.class_weights == pytest.approx(dict(enumerate(truth)))
    assert made.trained_share == pytest.approx([1 / 3] * 3)
    assert made.shown_share == made.natural_share
    np.testing.assert_array_equal(made.epoch(2), graded("none").epoch(2))
    assert {graded(strategy).class_weights for strategy in STRATEGIES if strategy != "class_weight"} == {None}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_prior_shift_undoes_every_strategy(strategy):
    """Bayes: a posterior at the trained shares, times natural over trained, is one at the natural shares."""
    made, evidence = graded(strategy), np.array([0.2, 0.5, 0.3])
    trained, natural = np.array(made.trained_share) * evidence, np.array(made.natural_share) * evidence
    corrected = np.exp(np.log(trained / trained.sum()) + prior_shift(made))
    np.testing.assert_allclose(corrected / corrected.sum(), natural / natural.sum())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_class_without_images_is_one_clear_line(strategy):
    with pytest.raises(DataRejected, match="training split: received \"no image of class 'cracked'\", expected images"):
        make_plan(GRADED, (*GRADES, "cracked"), strategy=strategy, batch_size=6, seed=0)
