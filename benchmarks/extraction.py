"""How fast features are computed, beside Keras's `predict` and beside what the machine can.

    python benchmarks/extraction.py [--size 112 224]

Images a second, all ways in turn; and as a fraction of the multiplications that a large matrix product gets out of this
machine. `predict` of an array now and then waits for tf.data's tuner until it has taken twice the time, by how many
images there are, so it is shown without the tuner as well, and compared with that.
"""

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from cells import sample_cells

from training.config import ModelConfig
from training.engine import Answer, quickest, to_onnx
from training.features import divided, images_at_once
from training.fit import _untuned
from training.network import backbone_of, build_model
from training.processors import usable
from training.threads import in_order

BATCH = 32
SIDE = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs="+", default=[112, 224], help="sides, in pixels")
    for size in parser.parse_args().size:
        x, _ = sample_cells(512 if size < 160 else 128, size)
        measure(x)


def measure(x: np.ndarray) -> None:
    base, _ = divided(build_model(ModelConfig(input_size=x.shape[1], policy="features")))
    begun = time.perf_counter()
    content = to_onnx(base)
    converting = time.perf_counter() - begun
    answer = quickest(base, lambda: content, x)
    untuned = _untuned(tf.data.Dataset.from_tensor_slices(x).batch(BATCH).prefetch(2))
    ways: dict[str, Callable[[], object]] = {
        "predict": lambda: base.predict(x, batch_size=BATCH, verbose=0),
        "untuned": lambda: base.predict(untuned, verbose=0),
        "features": lambda: answered(answer, x),
        "product": matrix_product,
    }
    seconds = interleaved(ways, 5)
    rates = {name: len(x) / seconds[name] for name in ways}
    peak = 2 * SIDE**3 / seconds["product"]
    used = rates["features"] * multiplications(base) * 2 / peak
    saved = 1 / rates["untuned"] - 1 / rates["features"]
    print(
        f"{x.shape[1]} px: features {rates['features']:.0f} images/s, predict {rates['predict']:.0f}, "
        f"without the tuner {rates['untuned']:.0f}: ratio {rates['features'] / rates['untuned']:.2f}; "
        f"{used:.0%} of the {peak / 1e9:.0f} GFLOP/s of a matrix product\n"
        f"   converting to ONNX takes {converting:.1f} s, as much as {converting / saved:.0f} images save",
        flush=True,
    )


def answered(answer: Answer, x: np.ndarray) -> np.ndarray:
    """As Nightshift asks: several threads, as many images at once to each."""
    at_once = images_at_once(x.shape[1])
    return np.concatenate(list(in_order(answer, np.split(x, range(at_once, len(x), at_once)), usable())))


def interleaved(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The median seconds of each, after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            if repeat:
                seconds[name].append(time.perf_counter() - begun)
    return {name: float(np.median(values)) for name, values in seconds.items()}


_LEFT, _RIGHT = np.random.default_rng(0).normal(size=(2, SIDE, SIDE)).astype(np.float32)


def matrix_product() -> np.ndarray:
    return tf.linalg.matmul(_LEFT, _RIGHT).numpy()


def multiplications(base: keras.Model) -> float:
    """Of one image, in convolutions: outputs times the kernel's inputs."""
    total = 0.0
    for layer in backbone_of(base).layers:
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            total += np.prod(layer.output.shape[1:]) * np.prod(layer.kernel.shape[:2])
        elif isinstance(layer, keras.layers.Conv2D):
            total += np.prod(layer.output.shape[1:]) * np.prod(layer.kernel.shape[:3])
    return total


if __name__ == "__main__":
    main()
