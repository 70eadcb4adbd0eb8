import numpy as np
import pytest

from training import bootstrap


def test_interval_covers_about_as_often_as_it_says():
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(300):
        values = random.normal(size=60)
        weights = bootstrap.image_weights(60, 400, random)
        low, high = bootstrap.interval(bootstrap.mean_draws(values, np.arange(60), np.zeros(60), weights))
        inside += low <= 0 <= high
    assert 0.95 <= inside / 300 <= 1


def test_rows_of_one_image_are_drawn_together():
    random = np.random.default_rng(0)
    values, ids = np.array([0.0, 0.0, 1.0]), np.array([0, 0, 1])
    draws = bootstrap.mean_draws(values, ids, np.zeros(3), bootstrap.image_weights(2, 1000, random))
    assert set(np.round(draws, 6)) == {0.0, round(1 / 3, 6), 1.0}


def test_classes_keep_their_shares():
    """A difference that is +1 for one class and −0.5 for the other is known exactly once the shares are."""
    random = np.random.default_rng(0)
    classes = np.repeat([0, 1], [40, 60])
    values = np.where(classes == 1, 1.0, -0.5)
    draws = bootstrap.mean_draws(values, np.arange(100), classes, bootstrap.image_weights(100, 500, random))
    np.testing.assert_allclose(draws, values.mean())


def test_intervals_at_fixed_shares_cover_about_as_often_as_they_say():
    random = np.random.default_rng(0)
    classes, inside = np.repeat([0, 1], 30), 0
    for _ in range(300):
        values = random.normal(size=60) + 3 * classes
        weights = bootstrap.image_weights(60, 400, random)
        low, high = bootstrap.interval(bootstrap.mean_draws(values, np.arange(60), classes, weights))
        inside += low <= 1.5 <= high
    assert 0.94 <= inside / 300 <= 1


def test_blocks_keep_the_mean_and_widen_where_neighbours_agree():
    random = np.random.default_rng(0)
    jumping, drifting = np.tile([0.0, 1.0], 36), np.repeat([0.0, 1.0], 36)
    spread = [np.std(bootstrap.block_mean_draws(steps, 2000, random)) for steps in (jumping, drifting)]
    assert spread[1] > 3 * spread[0]
    assert bootstrap.block_mean_draws(drifting, 2000, random).mean() == pytest.approx(0.5, abs=0.02)


def test_a_single_step_has_no_spread():
    draws = bootstrap.block_mean_draws(np.array([0.7]), 10, np.random.default_rng(0))
    np.testing.assert_array_equal(draws, np.full(10, 0.7))


def test_weights_in_blocks_are_the_same_weights():
    whole, parts = (draw(7, 250, np.random.default_rng(3)) for draw in (bootstrap.image_weights, _in_blocks))
    np.testing.assert_array_equal(whole, parts)


def _in_blocks(images, resamples, random):
    return np.concatenate(list(bootstrap.image_weight_blocks(images, resamples, random)))
