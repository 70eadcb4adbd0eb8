import numpy as np
import pytest

from tests.training.models import images, small_network, values
from training.batchnorm import freeze_batch_norm
from training.gap import Telescope
from training.metrics import ranking
from training.mini_batches import mini_batch_answers, mini_batch_statistics, mini_batches
from training.sampling import Prior

PRIOR = Prior(shift=(0.2, -0.3), method="analytic")


def statistics(model, x, y, *, batch_size, seed):
    answers = mini_batch_answers(Telescope(model), [x[rows] for rows in mini_batches(len(x), batch_size, seed)])
    return mini_batch_statistics(answers, y, batch_size=batch_size, prior=PRIOR, seed=seed)


def test_each_batch_is_normalised_by_its_own_statistics():
    """Keras's own training mode, batch by batch, is the truth; without dropout it differs in nothing else."""
    model, (x, y) = small_network(), images(96)
    before = values(model)
    found = statistics(model, x, y, batch_size=16, seed=3)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    order = np.random.default_rng(3).permutation(96)
    scores = np.concatenate([model(x[rows], training=True).numpy() for rows in order.reshape(-1, 16)])
    expected = ranking(np.log(scores) - np.log1p(-scores) - 0.5, y[order])
    assert found["batch_size"] == 16
    assert found["test"] == pytest.approx(expected, abs=1e-5)


def test_the_last_batch_is_as_large_as_the_others():
    """Five images that fill two batches of four: the second is the fifth and the first three again."""
    model, (x, _) = small_network(), images(5)
    found = statistics(model, x, np.array([0, 1, 0, 1, 1]), batch_size=4, seed=0)
    order = np.random.default_rng(0).permutation(5)
    both = [model(x[rows], training=True).numpy() for rows in (order[:4], [order[4], *order[:3]])]
    scores = np.concatenate(both)[:5]
    expected = ranking(np.log(scores) - np.log1p(-scores) - 0.5, np.array([0, 1, 0, 1, 1])[order])
    assert found["test"] == pytest.approx(expected, abs=1e-5)


def test_there_is_nothing_to_compare_without_batch_norm_that_learns():
    model, (x, _) = small_network(), images(32)
    freeze_batch_norm(model)
    assert mini_batch_answers(Telescope(model), [x[:8]]) is None


def test_answers_that_are_not_finite_are_null():
    model, (x, y) = small_network(), images(32)
    model.layers[-1].bias.assign([np.nan])
    assert statistics(model, x, y, batch_size=8, seed=0) is None
