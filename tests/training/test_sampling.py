import math

import numpy as np
import pytest

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
