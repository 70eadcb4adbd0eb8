"""Same seed, same wheels, same processor and threads: the same numbers to the bit."""

import os
import platform
from importlib import metadata
from pathlib import Path

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


def machine() -> dict[str, object]:
    """All that the numbers' last bits depend on besides code, settings and data."""
    return {
        "processor": _processor(),
        "threads": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "wheels": {name: metadata.version(name) for name in ("tensorflow", "keras", "numpy")},
    }


def _processor() -> str:
    """The processor's model, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor())
