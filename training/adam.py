"""Keras's Adam, each variable updated by one operation."""

from functools import partial
from typing import Any

import keras
import tensorflow as tf


def adam(learning_rate: float) -> keras.optimizers.Adam:
    """Adam (arXiv:1412.6980) with Keras's defaults, variables and name in saved files; equal but for rounding.

    Keras writes an update as a score of TensorFlow's operations, for each variable of the network. TensorFlow has one
    that does all of it: the step's graph is smaller and sooner traced, and a step takes up to a tenth less
    (benchmarks/training_step.py).
    """
    optimizer = keras.optimizers.Adam(learning_rate)
    # Of this one, not of a class of our own, which whoever loads a checkpoint would have to have.
    optimizer.update_step = partial(_by_one_kernel, optimizer)
    return optimizer


def _by_one_kernel(optimizer: keras.optimizers.Adam, gradient: Any, variable: tf.Variable, learning_rate: Any) -> None:
    """In the place of `update_step`; under a strategy called once for each device's part of the variable."""
    index, kind = optimizer._get_variable_index(variable), variable.dtype
    step = tf.cast(optimizer.iterations + 1, kind)
    beta_1, beta_2 = (tf.constant(beta, kind) for beta in (optimizer.beta_1, optimizer.beta_2))
    tf.raw_ops.ResourceApplyAdam(
        var=variable.handle,
        m=optimizer._momentums[index].value.handle,
        v=optimizer._velocities[index].value.handle,
        beta1_power=beta_1**step,
        beta2_power=beta_2**step,
        lr=tf.cast(learning_rate, kind),
        beta1=beta_1,
        beta2=beta_2,
        epsilon=tf.constant(optimizer.epsilon, kind),
        grad=gradient,
    )
