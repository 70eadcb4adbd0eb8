import tracemalloc

import imagehash
import numpy as np
import pytest
from PIL import Image

from training.appearance import SIDE, appearance
from training.images import describe


@pytest.fixture(scope="module")
def signatures(few_cells):
    cells = [path.read_bytes() for path in sorted((few_cells / "images").iterdir())[:50]]
    return np.stack([np.frombuffer(describe(cell)["signature"], np.uint8).reshape(SIDE, SIDE) for cell in cells])


def test_the_perceptual_hash_is_imagehashs(signatures):
    hashes = [str(imagehash.phash(Image.fromarray(signature))) for signature in signatures]
    assert appearance(signatures)["perceptual_hash"].tolist() == hashes


def test_brightness_and_contrast_are_those_of_the_image(few_cells, signatures):
    """Of what is left of it at this size."""
    paths = sorted((few_cells / "images").iterdir())[:50]
    pixels = np.stack([np.asarray(Image.open(path).convert("L").resize((SIDE, SIDE), 4)) for path in paths]) / 255
    found = appearance(signatures)
    np.testing.assert_allclose(found["brightness"], pixels.mean(axis=(1, 2)), atol=0.003)
    np.testing.assert_allclose(found["contrast"], pixels.std(axis=(1, 2)), atol=0.005)


def test_none_are_none():
    assert all(len(values) == 0 for values in appearance(np.empty((0, SIDE, SIDE), np.uint8)).values())


def test_an_image_looks_the_same_among_however_many(signatures):
    many = np.tile(signatures, (50, 1, 1))
    alone = [appearance(signature[None]) for signature in signatures]
    for name, values in appearance(many).items():
        assert values.tolist() == [one[name][0] for one in alone] * 50


def test_many_images_take_no_more_memory_than_some(signatures):
    """But for the facts themselves."""
    assert _peak(np.tile(signatures, (400, 1, 1))) < 2 * _peak(np.tile(signatures, (40, 1, 1)))


def _peak(signatures):
    tracemalloc.start()
    try:
        appearance(signatures)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
