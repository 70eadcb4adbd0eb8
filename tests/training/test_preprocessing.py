"""Training's pixels are, bit for bit, the ones that the served model computes."""

from fractions import Fraction
from math import floor
from pathlib import Path

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
import tf2onnx
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


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (2, 3), (31, 7), (427, 5)])
def test_one_result_however_small_or_narrow(height: int, width: int, photos: np.ndarray) -> None:
    batch = photos[:, :height, :width]
    alone = np.stack([to_pixels(photo, 24) for photo in batch])
    np.testing.assert_array_equal(in_model(24).predict(batch, verbose=0), alone)


def test_survives_saving_and_loading_in_safe_mode(tmp_path: Path, photos: np.ndarray) -> None:
    model = in_model(96)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    for batch in (photos, photos[:, :200, :300]):
        np.testing.assert_array_equal(loaded.predict(batch, verbose=0), [to_pixels(photo, 96) for photo in batch])


@pytest.mark.parametrize("size", [20, 97, 224])
def test_it_is_the_mean_of_four_samples_at_128ths_of_a_pixel(size: int, photos: np.ndarray) -> None:
    """Against whole numbers of 128ths, interpolated by NumPy in float64: exact, the rounding of ties included."""

    def sampled(pixels: np.ndarray, side: int) -> np.ndarray:
        middles = [Fraction((2 * n + 1) * side, 4 * size) - Fraction(1, 2) for n in range(2 * size)]
        places = [float(Fraction(floor(128 * middle + Fraction(1, 2)), 128)) for middle in middles]
        return np.apply_along_axis(lambda line: np.interp(places, np.arange(side), line), 0, pixels)

    photo = photos[0, :211, :333]
    rows = sampled(photo, 211)
    doubled = sampled(rows.swapaxes(0, 1), 333).swapaxes(0, 1)
    exact = doubled.reshape(size, 2, size, 2, 3).mean(axis=(1, 3))
    np.testing.assert_array_equal(to_pixels(photo, size), np.round(exact))


def test_another_runtime_gives_the_very_same_pixels(tmp_path: Path, photos: np.ndarray) -> None:
    """A resize of the runtime's own would not: one pixel in some hundreds is rounded the other way."""
    model = in_model(96)
    graph, signature = tf.function(model), [tf.TensorSpec((None, None, None, 3), tf.uint8)]
    tf2onnx.convert.from_function(graph, signature, output_path=tmp_path / "shrink.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "shrink.onnx")
    for height, width in ((427, 640), (300, 300), (211, 333), (53, 41)):
        batch = photos[:, :height, :width]
        (found,) = session.run(None, {session.get_inputs()[0].name: batch})
        np.testing.assert_array_equal(found, [to_pixels(photo, 96) for photo in batch])


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
