import io
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from training import near_duplicates
from training.appearance import SIDE
from training.images import describe
from training.near_duplicates import EQUALS, RADIUS, SAME, candidates, hash_numbers, likenesses, partly_lost


def by_brute_force(hashes, first_new):
    near = np.bitwise_count(hashes[:, None] ^ hashes) <= RADIUS
    elder, younger = np.nonzero(np.triu(near, 1))
    return np.stack([elder, younger], axis=1)[younger >= first_new]


def moved(number, bits, random):
    """The hash at Hamming distance `bits`."""
    return number ^ np.bitwise_or.reduce(np.uint64(1) << random.choice(64, bits, replace=False).astype(np.uint64))


def planted(random, images=600):
    """Random hashes in random order, among them neighbours at each distance up to just beyond the radius."""
    hashes = random.integers(2**64, size=images, dtype=np.uint64)
    near = [moved(number, bits, random) for number in hashes[:40] for bits in range(1, RADIUS + 2)]
    return random.permutation(np.concatenate([hashes, np.array(near, np.uint64), hashes[:50]]))


@pytest.fixture(params=["comparing each with each", "looking in bands"])
def way(request, monkeypatch):
    """Small sets are compared directly; both ways must find the same."""
    if request.param == "looking in bands":
        monkeypatch.setattr(near_duplicates, "_EACH", 0)


@pytest.mark.parametrize("first_new", [0, 1, 500, 1009, 1010])
def test_every_near_pair_of_a_new_image_is_found_and_no_other(first_new, way):
    hashes = planted(np.random.default_rng(first_new))
    np.testing.assert_array_equal(candidates(hashes, first_new), by_brute_force(hashes, first_new))


def test_bits_flipped_in_any_bands_are_found(way):
    """The worst spreads of the radius over the four bands, which only one band can find."""
    spreads = [(2, 2, 2, 2), (3, 2, 2, 1), (1, 2, 2, 3), (2, 1, 3, 2), (0, 4, 2, 2), (4, 4, 0, 0), (8, 0, 0, 0)]
    for spread in spreads:
        other = sum(((1 << bits) - 1) << (16 * band) for band, bits in enumerate(spread))
        assert len(candidates(np.array([0, other], np.uint64), 1)) == 1
    assert len(candidates(np.array([0, 2**9 - 1], np.uint64), 1)) == 0


def test_nothing_new_and_nothing_at_all():
    assert candidates(np.zeros(5, np.uint64), 5).shape == (0, 2)
    assert candidates(np.zeros(0, np.uint64), 0).shape == (0, 2)
    assert candidates(np.zeros(1, np.uint64), 0).shape == (0, 2)


def test_of_a_crowd_of_equals_each_is_paired_with_the_eldest_few():
    crowd = np.full(20_000, 7, np.uint64)
    pairs = candidates(crowd, 0)
    assert pairs[:, 0].max() == EQUALS - 1
    np.testing.assert_array_equal(np.bincount(pairs[:, 1]), np.minimum(np.arange(20_000), EQUALS))
    assert len(candidates(crowd, 19_999)) == EQUALS


def test_a_neighbour_of_a_crowd_meets_its_eldest_few():
    pairs = candidates(np.array([7] * 30 + [6], np.uint64), 30)
    np.testing.assert_array_equal(pairs, [[elder, 30] for elder in range(EQUALS)])


def test_blocks_do_not_change_what_is_found(monkeypatch, way):
    hashes = planted(np.random.default_rng(3))
    whole = candidates(hashes, 100)
    monkeypatch.setattr(near_duplicates, "_BLOCK", 1)
    np.testing.assert_array_equal(candidates(hashes, 100), whole)


def test_hash_numbers():
    assert hash_numbers(np.array(["0000000000000010", "ffffffffffffffff"])).tolist() == [16, 2**64 - 1]
    assert hash_numbers(np.array([], str)).shape == (0,)
    with pytest.raises(ValueError, match="invalid literal"):
        hash_numbers(np.array(["no hash"]))


@pytest.fixture(scope="module")
def cells(all_cells):
    """A hundred solar cells, neighbours in the sample among them."""
    paths = sorted((all_cells / "images").glob("*.png"))
    return [Image.open(path).convert("L") for path in [*paths[:50], *paths[50::50][:50]]]


def signatures(images, kind="PNG", **options):
    found = []
    for image in images:
        content = io.BytesIO()
        image.save(content, kind, **options)
        found.append(np.frombuffer(describe(content.getvalue())["signature"], np.uint8).reshape(SIDE, SIDE))
    return np.stack(found)


def are_copies(originals, copies):
    """Of each original, whether its copy is found to be the same picture."""
    count = len(originals)
    pairs = np.stack([np.arange(count), np.arange(count) + count], axis=1)
    return likenesses(np.concatenate([originals, copies]), pairs) >= SAME


def test_a_hundred_different_cells_are_not_the_same_picture(cells):
    pairs = np.array(list(combinations(range(100), 2)))
    assert likenesses(signatures(cells), pairs).max() < SAME


@pytest.mark.parametrize(
    "change",
    [
        lambda cell: cell.point(lambda gray: gray * 0.7),
        lambda cell: cell.point(lambda gray: min(255, gray * 1.15)),
        lambda cell: cell.point(lambda gray: gray * 0.5 + 60),
        lambda cell: cell.resize((150, 150)),
        lambda cell: cell.resize((233, 233)),
        lambda cell: cell.resize((150, 300)),
        lambda cell: cell.resize((700, 700)),
    ],
    ids=["darker", "brighter until it clips", "less contrast", "half the size", "odd size", "squeezed", "larger"],
)
def test_a_changed_cell_is_the_same_picture(cells, change):
    assert are_copies(signatures(cells), signatures([change(cell) for cell in cells])).mean() >= 0.98


@pytest.mark.parametrize("quality", [50, 75, 95])
def test_a_cell_encoded_again_is_the_same_picture(cells, quality):
    assert are_copies(signatures(cells), signatures(cells, "JPEG", quality=quality)).mean() >= 0.98


def test_mirrored_and_inverted_cells_are_different_pictures(cells):
    originals = signatures(cells)
    assert not are_copies(originals, originals[:, :, ::-1]).any()
    assert not are_copies(originals, 255 - originals).any()


def test_pictures_of_nothing_are_the_same_only_if_equal():
    random = np.random.default_rng(0)
    plain = [np.full((SIDE, SIDE), gray, np.uint8) for gray in (0, 9, 128, 255)]
    noise = [random.integers(0, 4, (SIDE, SIDE), dtype=np.uint8) for _ in range(2)]
    pictures = np.stack(plain + noise)
    pairs = np.array([(i, j) for i in range(6) for j in range(6)])
    np.testing.assert_array_equal(likenesses(pictures, pairs), (pairs[:, 0] == pairs[:, 1]).astype(float))


def test_pairs_are_compared_alike_in_any_portions(cells, monkeypatch):
    originals, pairs = signatures(cells), np.array(list(combinations(range(60), 2)))
    whole = likenesses(originals, pairs)
    monkeypatch.setattr(near_duplicates, "_PAIRS", 7)
    np.testing.assert_array_equal(likenesses(originals, pairs), whole)


def test_a_correlation_is_numpys(cells):
    """Where nothing is white: of the means of the sixteen by sixteen blocks."""
    originals = signatures(cells) // 2
    blocks = originals.reshape(100, 16, 2, 16, 2).mean(axis=(2, 4)).reshape(100, -1)
    truth = np.corrcoef(blocks)
    pairs = np.array(list(combinations(range(100), 2)))
    np.testing.assert_allclose(likenesses(originals, pairs), truth[pairs[:, 0], pairs[:, 1]], atol=1e-4)


def test_a_picture_is_partly_lost_where_it_is_white():
    pictures = np.full((2, SIDE, SIDE), 100, np.uint8)
    pictures[1, 3, 4] = 255
    assert partly_lost(pictures).tolist() == [False, True]
