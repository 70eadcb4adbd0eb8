"""From an image of any size to the square the network sees: one arithmetic for training and for serving."""

from functools import lru_cache
from typing import Any

import numpy as np
from keras import ops

# Samples lie at whole parts of a pixel's side. With 128 of them every product and sum below fits into float32's 24
# bits, so that nothing is rounded but at the end, and every runtime, in whatever order it adds, gives the same pixels.
_PARTS = 128


def shrink(images: Any, size: int) -> Any:
    """Resize a batch to squares.

    Bilinear to twice the side, then the mean of each 2×2 block: four samples a pixel against aliasing (a resize
    with antialiasing would be finer, but cannot be exported to ONNX). Whole numbers, so that pixels kept as uint8
    are the very ones the served model computes.

    Args:
        images: uint8 or float (n, height, width, 3), 0…255, an array or a KerasTensor; height and width may be unknown.
        size: the square's side, in pixels.

    Returns:
        float32 (n, size, size, 3), whole numbers 0…255, as an eager tensor or a KerasTensor.
    """
    pixels = ops.cast(images, "float32")
    # Sides are counted, since a KerasTensor's shape may not know them.
    rows = _sampled(pixels, ops.size(pixels[0, :, 0, 0]), 2 * size, axis=1)
    doubled = _sampled(rows, ops.size(rows[0, 0, :, 0]), 2 * size, axis=2)
    return ops.round(ops.average_pool(doubled, pool_size=2, strides=2))


def to_pixels(image: np.ndarray, size: int) -> np.ndarray:
    """One image, uint8 (height, width, 3), as the uint8 (size, size, 3) that `shrink` makes of it.

    By NumPy, which takes a quarter of TensorFlow's time for it (benchmarks/ingest.py).
    """
    summed = _summed(_summed(image, size, axis=0), size, axis=1)
    return np.asarray(np.rint(summed / np.float32(2 * _PARTS) ** 2), np.uint8)


def _summed(pixels: np.ndarray, size: int, *, axis: int) -> np.ndarray:
    """The samples of `_sampled`, added up by twos and not yet divided by the parts of a pixel: whole numbers."""
    lower, upper, share = _known_neighbours(pixels.shape[axis], 2 * size)
    share = share.reshape(-1, *(1,) * (2 - axis))
    below, above = pixels.take(lower, axis), pixels.take(upper, axis)
    samples = below * (np.float32(_PARTS) - share) + above * share
    pairs = samples.reshape(*samples.shape[:axis], size, 2, *samples.shape[axis + 1 :])
    return np.add(*np.moveaxis(pairs, axis + 1, 0))


@lru_cache
def _known_neighbours(side: int, samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    lower, upper, share = _neighbours(side, samples)
    return np.asarray(lower), np.asarray(upper), np.asarray(share)


def _sampled(pixels: Any, side: Any, samples: int, *, axis: int) -> Any:
    """`pixels` at so many evenly spaced places along an axis `side` long, each between its two neighbours."""
    lower, upper, share = _neighbours(side, samples)
    share = ops.reshape(share / _PARTS, (samples, *(1,) * (3 - axis)))
    return ops.take(pixels, lower, axis=axis) * (1 - share) + ops.take(pixels, upper, axis=axis) * share


def _neighbours(side: Any, samples: int) -> tuple[Any, Any, Any]:
    """For each of the places the pixels below and above it, and how many parts of the way to the upper it lies."""
    side = ops.cast(side, "int64")
    # The middles of `samples` equal parts of the side, from the middle of the first pixel, in parts of a pixel.
    middles = np.arange(1, 2 * samples, 2, dtype=np.int64) * _PARTS
    places = ops.maximum((side * middles + samples) // (2 * samples) - _PARTS // 2, 0)
    places = ops.minimum(places, (side - 1) * _PARTS)
    lower = places // _PARTS
    return lower, ops.minimum(lower + 1, side - 1), ops.cast(places - lower * _PARTS, "float32")
