"""Same seed, same wheels, same processor and threads: the same numbers to the bit."""

import keras
import tensorflow as tf


def make_deterministic(seed: int) -> None:
    """Seed Python, NumPy and TensorFlow, and choose TensorFlow's deterministic kernels, for the whole process.

    Grappler is turned off: its rewrites differ from process to process, which moves the last bits of the gradients,
    and without it a step is no slower and the first one comes sooner.
    """
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
