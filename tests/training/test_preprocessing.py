"""Training's pixels are, bit for bit, the ones that the served model computes."""

from pathlib import Path

import keras
import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from training.preprocessing import shrink, to_pixels


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    """Four real photographs' worth of pixels, uint8 (4, 427, 640, 3)."""
    china, flower = load_sample_image("china.jpg"), load_sample_image("flower.jpg")
    return np.stack([china, flower, china[::-1], flower[:, ::-1]])


def in_model(size: int) -> keras.Model:
    images = keras.Input((None, None, 3), dtype="uint8")
    return keras.Model(images, shrink(images, size))


@pytest.mark.parametrize("size", [32, 96, 97, 224, 500, 700])
def test_one_result_in_the_model_and_outside_alone_and_in_batches(size: int, photos: np.ndarray) -> None:
    alone = np.stack([to_pixels(photo, size) for photo in photos])
    together = in_model(size).predict(photos, batch_size=3, verbose=0)
    assert alone.dtype == np.uint8
    assert together.dtype == np.float32
    np.testing.assert_array_equal(together, alone)


def test_survives_saving_and_loading_in_safe_mode(tmp_path: Path, photos: np.ndarray) -> None:
    model = in_model(96)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    for batch in (photos, photos[:, :200, :300]):
        np.testing.assert_array_equal(loaded.predict(batch, verbose=0), [to_pixels(photo, 96) for photo in batch])


def test_keeps_colours(photos: np.ndarray) -> None:
    flat = np.full((50, 70, 3), 37, np.uint8)
    assert (to_pixels(flat, 64) == 37).all()
    mean = to_pixels(photos[0], 96).mean(axis=(0, 1))
    np.testing.assert_allclose(mean, photos[0].mean(axis=(0, 1)), atol=1)


def test_fine_stripes_average_out_instead_of_aliasing() -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    assert abs(to_pixels(stripes, 64).astype(float) - 127.5).max() <= 1


def test_takes_floats_and_rounds() -> None:
    assert set(np.unique(shrink(np.full((1, 8, 8, 3), 3.4), 4))) == {3.0}
