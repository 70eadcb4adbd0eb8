"""Same seed, same wheels, same processor and threads: the same numbers to the bit."""

from contextlib import suppress

import keras
import tensorflow as tf

from training.processors import available, usable


def make_deterministic(seed: int) -> None:
    """Seed Python, NumPy and TensorFlow, and choose TensorFlow's deterministic kernels, for the whole process.

    Grappler is turned off: its rewrites differ from process to process, which moves the last bits of the gradients,
    and without it a step is no slower and the first one comes sooner.
    """
    keras.utils.set_random_seed(seed)
    if usable() != available():
        # TensorFlow counts for itself, and once it has begun, nothing can be changed.
        with suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(usable())
            tf.config.threading.set_inter_op_parallelism_threads(usable())
    tf.config.experimental.enable_op_determinism()
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
