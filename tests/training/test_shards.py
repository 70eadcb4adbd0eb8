from collections import Counter

import numpy as np
import pytest

from training.shards import WHOLE, Part, parts, spans


@pytest.mark.parametrize("rows", [0, 1, 2, 31, 32, 33, 64, 65, 100, 1025])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 50])
def test_parts_are_the_whole_cut_between_batches(rows, count):
    every = [part.batches(rows, 32) for part in parts(count)]
    assert [batch for part in every for batch in part] == spans(rows, 32)
    slices = [part.rows(rows, 32) for part in parts(count)]
    assert np.concatenate([np.arange(rows)[some] for some in slices]).tolist() == list(range(rows))
    sizes = [len(part) for part in every]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("rows", range(2, 200))
def test_no_batch_is_of_one_image(rows):
    sizes = Counter(len(batch) for batch in spans(rows, 8))
    assert min(sizes) >= 2 and max(sizes) <= 9
    assert sum(size * times for size, times in sizes.items()) == rows


def test_what_cannot_be_joined_stays_alone():
    assert spans(1, 8) == [range(1)]
    assert spans(3, 1) == [range(1), range(1, 2), range(2, 3)]


def test_one_part_is_everything():
    assert WHOLE.rows(33, 8) == slice(0, 33)
    assert Part(1, 2).cut("abc") == "bc"
