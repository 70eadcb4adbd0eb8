"""From an image of any size to the square the network sees: one piece of code for training and for serving."""

from typing import Any

import numpy as np
from keras import ops


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
    doubled = ops.image.resize(ops.cast(images, "float32"), (2 * size, 2 * size), interpolation="bilinear")
    return ops.round(ops.average_pool(doubled, pool_size=2, strides=2))


def to_pixels(image: np.ndarray, size: int) -> np.ndarray:
    """One image, uint8 (height, width, 3), as the uint8 (size, size, 3) that `shrink` makes of it."""
    return ops.convert_to_numpy(shrink(image[None], size))[0].astype(np.uint8)
