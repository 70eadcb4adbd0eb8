"""What a training computes on: every GPU of its machine, each with an equal part of every batch."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from training.batchnorm import batch_norm_layers
from training.errors import received
from training.telescope import seed_states

log = logging.getLogger(__name__)


def strategy(batch_size: int) -> tf.distribute.Strategy:
    """How to train on the `used` devices: a model built in its scope is trained by `fit` on all of them.

    What they find is added up on one of them, always in the same order, which NCCL does not promise.
    """
    devices, there = used(batch_size), len(found())
    log.info("training on %s: %d images a step on each", ", ".join(names(devices)), batch_size // len(devices))
    if len(devices) < there:
        log.warning(received("train.batch_size", batch_size, f"a multiple of {there}, for every device to be used"))
    if len(devices) == 1:
        return tf.distribute.get_strategy()
    reduction = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy([device.name for device in devices], cross_device_ops=reduction)


def used(batch_size: int) -> list[tf.config.LogicalDevice]:
    """As many of those found as divide a batch evenly.

    Keras averages the devices' mean losses: in unequal parts, an image's weight would depend on where it came.
    """
    there = found()
    return there[: max(count for count in range(1, len(there) + 1) if batch_size % count == 0)]


def found() -> list[tf.config.LogicalDevice]:
    """The machine's GPUs; without any its CPU, which is one device unless TensorFlow was told to divide it."""
    return tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")


def names(devices: Sequence[tf.config.LogicalDevice]) -> list[str]:
    """For people, with the make where TensorFlow knows it: "GPU:0 NVIDIA A100"."""
    details = tf.config.experimental.get_device_details
    physical = {one.name.removeprefix("/physical_device:"): one for one in tf.config.list_physical_devices()}
    makes = {name: details(one).get("device_name", "") for name, one in physical.items()}
    short = [device.name.removeprefix("/device:") for device in devices]
    return [f"{name} {makes.get(name, '')}".strip() for name in short]


@contextmanager
def together(model: keras.Model) -> Iterator[None]:
    """Inside, the devices that the model was built on train it as one: BatchNorm pools a batch's moments over them.

    Not set where there is one device: Keras rounds pooled moments (E x² − (E x)²) otherwise than a batch's own. Nor
    saved, since it says how a model was trained, not what it is.
    """
    layers = batch_norm_layers(model) if model.distribute_strategy.num_replicas_in_sync > 1 else []
    before = [layer.synchronized for layer in layers]
    with model.distribute_strategy.scope():
        try:
            for layer in layers:
                layer.synchronized = True
            yield
        finally:
            for layer, synchronized in zip(layers, before, strict=True):
                layer.synchronized = synchronized


def draw_apart(model: keras.Model) -> None:
    """Give each device random numbers of its own; from one seed, all would drop the same units of their images.

    The first device's are the model's, and saved with it; the others' follow from them.
    """
    for state in seed_states(model):
        for number, part in enumerate(_parts([state])):
            part.assign(np.add(state.numpy(), [number, 0]))


def tallies(variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    """What each device has counted in the variables of metrics, device after device for each variable."""
    return [part.numpy() for part in _parts(variables)]


def put_tallies(variables: Sequence[keras.Variable], arrays: Sequence[np.ndarray]) -> None:
    """Put back what `tallies` took; if that was on another number of devices, the first goes on from their sums."""
    parts = _parts(variables)
    there, here = (len(each) // len(variables) for each in (arrays, parts))
    if there != here:
        sums = [np.sum(arrays[first : first + there], axis=0) for first in range(0, len(arrays), there)]
        arrays = [array for total in sums for array in (total, *[np.zeros_like(total)] * (here - 1))]
    for part, array in zip(parts, arrays, strict=True):
        part.assign(array)


def _parts(variables: Sequence[keras.Variable]) -> list[Any]:
    """What each device of the strategy in scope has of each variable."""
    local = tf.distribute.get_strategy().experimental_local_results
    return [part for variable in variables for part in local(variable.value)]
