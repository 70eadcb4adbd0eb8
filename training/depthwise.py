"""Depthwise convolutions' training step where kernels are larger than their images, as at the end of small networks.

For these oneDNN has no quick way to the kernel's gradient. At 112 px they took a sixth of the default network's whole
step (benchmarks/training_step.py), for three layers of images of 4 x 4.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf
from keras.layers import DepthwiseConv2D

from training.batchnorm.layers import calling


@contextmanager
def roomy_depthwise(model: keras.Model) -> Iterator[None]:
    """While `fit` traces its step inside, the zeros of "same" padding are put around images smaller than the kernel.

    The convolution then gets images as large as it wants them, and adds none itself: outputs and gradients are Keras's
    but for rounding. Where there is a GPU, on which none of this was measured, all stays as it is.
    """
    on_gpu = bool(tf.config.list_logical_devices("GPU"))
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, DepthwiseConv2D) and _plain(layer)]
    with calling([] if on_gpu else layers, _with_room):
        yield


def _plain(layer: DepthwiseConv2D) -> bool:
    return layer.padding == "same" and layer.data_format == "channels_last" and set(layer.dilation_rate) == {1}


def _with_room(layer: DepthwiseConv2D) -> Any:
    original = layer.call

    def call(inputs: Any) -> Any:
        sides = inputs.shape[1:3]
        if None in sides or all(side >= kernel for side, kernel in zip(sides, layer.kernel_size, strict=True)):
            return original(inputs)
        margins = map(margin, sides, layer.kernel_size, layer.strides)
        # Not as explicit paddings: with a bias after it, TensorFlow 2.21 ends the process over those.
        layer.padding = "valid"
        try:
            return original(tf.pad(inputs, [(0, 0), *margins, (0, 0)]))
        finally:
            layer.padding = "same"

    return call


def margin(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """The zeros that "same" padding puts before and after an axis, of which the odd one comes after."""
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2
