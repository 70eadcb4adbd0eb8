import numpy as np
import pytest

from tests.training.models import in_batches
from training.batchnorm.statistics import Statistics, distance


@pytest.mark.parametrize("sizes", [(1, 7, 30, 33), (100,), (50,)])
def test_statistics_pool_like_numpy_over_uneven_batches(sizes):
    x = np.random.default_rng(0).normal(5, 3, (100, 4))
    pooled = Statistics(4)
    for batch in in_batches(x, *sizes):
        pooled.add(len(batch), batch.mean(axis=0), batch.var(axis=0))
    pooled.add(0, np.zeros(4), np.zeros(4))  # a batch of which everything is masked
    np.testing.assert_allclose(pooled.mean, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(pooled.variance, x.var(axis=0), rtol=1e-12)


def test_distance_in_sigmas_and_as_a_ratio():
    pooled = Statistics(2)
    pooled.add(10, np.array([1.0, 2.0]), np.array([4.0, 9.0]))
    found = distance(np.array([1.0, 8.0]), np.array([8.0, 18.0]), pooled, epsilon=0)
    assert found.worst_mean_drift == pytest.approx(2)
    assert found.mean_drift == pytest.approx(np.sqrt(2))
    assert found.variance_ratio == pytest.approx(2)
    assert found.worst == pytest.approx(2)
