"""A process whose processor TensorFlow takes for several devices, which a process cannot change once it has begun."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context


@contextmanager
def process_with(devices: int) -> Iterator[ProcessPoolExecutor]:
    """Functions of test modules can be submitted to it; it does one after the other."""
    with ProcessPoolExecutor(1, get_context("spawn"), _divide_processor, (devices,)) as process:
        yield process


def afresh(floats: str) -> None:
    """Forget what earlier functions left in the process: names that count on, and the precision of numbers."""
    import keras

    keras.utils.clear_session()
    keras.config.set_floatx(floats)


def _divide_processor(devices: int) -> None:
    import tensorflow as tf

    (processor,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * devices)
