"""How exact recalibration is, what it costs, and how it compares with fvcore's algorithm.

    python benchmarks/recalibration.py [--images 1024] [--size 80] [--repeats 7]

The default network after one epoch on sample images. The truth is NumPy's, in float64, from the first convolution's
inputs; costs are medians of interleaved repeats in this one run, after tracing, as ratios to a forward pass in
training mode over the same batches.
"""

import argparse
import os
import resource
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from cells import briefly_trained, sample_cells

from training.batchnorm import Recalibrator, batch_norm_layers, put_back, statistics_variables
from training.logits import cross_entropies, in_batches, inference_logits

Values = list[np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--size", type=int, default=80)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    x, y = sample_cells(options.images, options.size)
    model = briefly_trained(x, y)
    print(f"{len(batch_norm_layers(model))} BatchNorm layers, {len(x)} images of {options.size} px, batches of 32\n")
    exactness(model, x, y)
    cost(model, x, options.repeats)
    memory(model, x)


def exactness(model: keras.Model, x: np.ndarray, y: np.ndarray) -> None:
    """Each method's first layer against NumPy, all layers against other batchings, and the loss it leads to."""
    variables = statistics_variables(batch_norm_layers(model))
    lagging = [variable.numpy() for variable in variables]
    truth = first_layer(model, x)
    shuffled = np.random.default_rng(1).permutation(len(x))
    print("first layer against NumPy (largest error of a channel), and how the result depends on the batches")
    print(
        "                        mean (sigma)  variance (relative)   other batches: first layer    all layers     loss"
    )
    loss = inference_logits(model)
    for name, method in METHODS.items():
        results = []
        for rows, size in ((np.arange(len(x)), 32), (shuffled, 50)):
            put_back(variables, lagging)
            method(model, [x[rows[start : start + size]] for start in range(0, len(x), size)])
            results.append([variable.numpy() for variable in variables])
        put_back(variables, results[0])
        error = differences(results[0][:2], truth)
        print(
            f"{name:24}{error[0]:12.1e}{error[1]:21.1e}{max(differences(*(r[:2] for r in results))):29.1e}"
            f"{max(differences(*results)):14.1e}{cross_entropies(in_batches(loss, x, 64), y).mean():9.4f}",
            flush=True,
        )
    put_back(variables, lagging)
    print(f"{'as training left them':88}{'':10}{cross_entropies(in_batches(loss, x, 64), y).mean():9.4f}\n")


def one_pass(model: keras.Model, batches: list[np.ndarray]) -> None:
    Recalibrator(model).recalibrate(batches)


def self_consistent(model: keras.Model, batches: list[np.ndarray]) -> None:
    report = Recalibrator(model).recalibrate(batches, mode="self_consistent")
    print(f"  ({report.passes} passes, residual {report.residual:.1e})")


def plain_iteration(model: keras.Model, batches: list[np.ndarray], passes: int = 12) -> None:
    """Inference-mode passes alone, as many as self-consistency needs: what goes wrong without prediction."""
    recalibrator = Recalibrator(model)
    recalibrator.recalibrate(batches)
    for _ in range(passes - 1):
        _, pooled = recalibrator.measure(batches, in_training=False)
        recalibrator._write(pooled)


def fvcore(model: keras.Model, batches: list[np.ndarray]) -> None:
    """The algorithm of fvcore's `update_bn_stats`: momentum off, whole model in training mode, average over batches.

    Differences by design: dropout stays on, a short last batch weighs as much as a full one, the variance is the mean
    of the batches' own (the variance of their means is lost), and everything is float32.
    """
    layers = batch_norm_layers(model)
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    variables = statistics_variables(layers)
    forward = tf.function(lambda batch: model(batch, training=True))
    means: Values = [np.zeros(variable.shape, np.float32) for variable in variables]
    for number, batch in enumerate(batches, start=1):
        forward(batch)
        of_batch = [variable.numpy() for variable in variables]
        means = [mean + (new - mean) / np.float32(number) for mean, new in zip(means, of_batch, strict=True)]
    put_back(variables, means)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


METHODS: dict[str, Callable[[keras.Model, list[np.ndarray]], None]] = {
    "one pass": one_pass,
    "self-consistent": self_consistent,
    "fvcore's algorithm": fvcore,
    "12 plain passes": plain_iteration,
}


def first_layer(model: keras.Model, x: np.ndarray) -> Values:
    """Mean and variance of the first BatchNorm's input, by NumPy in float64: scaling, padding and a 3×3 convolution."""
    backbone = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    kernel = backbone.get_layer("stem_conv").kernel.numpy().astype(np.float64)
    count, total, squares = 0, np.zeros(kernel.shape[-1]), np.zeros(kernel.shape[-1])
    for start in range(0, len(x), 64):
        scaled = x[start : start + 64].astype(np.float64) / 128 - 127 / 128
        padded = np.pad(scaled, ((0, 0), (0, 1), (0, 1), (0, 0)))  # TensorFlow's 'same' for stride 2 and an even side
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::2, ::2]
        out = np.einsum("nijchw,hwco->nijo", windows, kernel, optimize=True).reshape(-1, kernel.shape[-1])
        count, total, squares = count + len(out), total + out.sum(axis=0), squares + (out**2).sum(axis=0)
    mean = total / count
    return [mean, squares / count - mean**2]


def differences(found: Values, truth: Values) -> tuple[float, float]:
    """The largest difference of a channel's mean in sigmas, and of its variance as a fraction, over all layers."""
    pairs = list(zip(found[::2], found[1::2], truth[::2], truth[1::2], strict=True))
    means = [np.abs(mean - m) / np.sqrt(v + 1e-3) for mean, _, m, v in pairs]
    variances = [np.abs((variance + 1e-3) / (v + 1e-3) - 1) for _, variance, _, v in pairs]
    return float(max(map(np.max, means))), float(max(map(np.max, variances)))


def cost(model: keras.Model, x: np.ndarray, repeats: int) -> None:
    """Time over the same batches, relative to a forward pass in training mode."""
    batches = [tf.constant(x[start : start + 32]) for start in range(0, len(x), 32)]
    variables = statistics_variables(batch_norm_layers(model))
    lagging = [variable.numpy() for variable in variables]
    training = tf.function(lambda batch: model(batch, training=True))
    recalibrator = Recalibrator(model)
    ways: dict[str, Callable[[], Any]] = {
        "forward, training mode": lambda: [training(batch) for batch in batches],
        "recalibrate, one pass": lambda: recalibrator.recalibrate(batches),
        "self-consistent, each pass": lambda: recalibrator.recalibrate(batches, mode="self_consistent"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            put_back(variables, lagging)
            begun = time.perf_counter()
            found = way()
            if repeat:  # the first traces
                passes = getattr(found, "passes", 1) if name.startswith("self") else 1
                seconds[name].append((time.perf_counter() - begun) / passes)
    put_back(variables, lagging)
    base = np.array(seconds["forward, training mode"])
    print(f"time over {len(x)} images, relative to the forward pass beside it (median of {repeats}, and range)")
    for name, values in seconds.items():
        ratios = np.array(values) / base
        print(f"{name:28}{np.median(ratios):6.2f}  ({ratios.min():.2f} to {ratios.max():.2f})")
    print()


def memory(model: keras.Model, x: np.ndarray) -> None:
    """Peak memory of the process while ever more images stream by."""
    recalibrator = Recalibrator(model)

    def stream(count: int) -> Iterator[np.ndarray]:
        for start in range(0, count, 32):
            yield x[np.arange(start, start + 32) % len(x)]

    print("peak memory of the process (MiB)")
    for factor in (1, 4, 16):
        recalibrator.recalibrate(stream(256 * factor))
        print(f"{256 * factor:6d} images{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:10.0f}")


if __name__ == "__main__":
    main()
