"""How long a training step takes, by each way to compute it: as shipped, by Keras's own BatchNorm, and in bfloat16.

    python benchmarks/training_step.py [--size 80] [--steps 20] [--repeats 3]

The default network, every layer trained on sample images in batches of 32. Each way in a process of its own, in turn;
medians, and their ratio to Keras's own step. All but one use oneDNN's kernels, which TensorFlow by itself uses only on
processors with AVX-512. Where a processor multiplies bfloat16 numbers (AMX, AVX512_BF16), the float32 network can have
its products computed so, or all of it but the variables can be bfloat16. With tf.data's tuner on, its default, `fit`
ends when the tuner's thread next wakes up: 10, 30, 70 ms and so on after it began, each time twice as late.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import median

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

ROOT = Path(__file__).parents[1]
# By name: the variables of its environment.
WAYS: dict[str, dict[str, str]] = {
    "Keras's own": {},
    "fused BatchNorm": {},
    "fused, roomy depthwise": {},
    "fused, roomy, Adam's kernel (as shipped)": {},
    "as shipped, no oneDNN": {"TF_ENABLE_ONEDNN_OPTS": "0"},
    "as shipped, tf.data tuned": {},
    "as shipped, bfloat16 products": {"TF_SET_ONEDNN_FPMATH_MODE": "BF16"},
    "mixed_bfloat16": {},
}
BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=80)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--way", choices=list(WAYS), help="measure one, and print its figures")
    options = parser.parse_args()
    if options.way:
        print(json.dumps(seconds_a_step(options.way, options.size, options.steps)))
    else:
        compare(options.size, options.steps, options.repeats)


def compare(size: int, steps: int, repeats: int) -> None:
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(repeats):
        for way, seconds in found.items():
            command = [sys.executable, __file__, "--size", str(size), "--steps", str(steps), "--way", way]
            environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "1", **WAYS[way]}
            done = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True)
            seconds.append(median(json.loads(done.stdout.splitlines()[-1])))
    print("\n".join(lines(size, found)))


def lines(size: int, found: dict[str, list[float]]) -> Sequence[str]:
    own = median(found["Keras's own"])
    rows = [(way, median(seconds), min(seconds), max(seconds)) for way, seconds in found.items()]
    head = f"{size} px, batches of {BATCH}: ms a step (the processes' range), images a second, ratio to the first"
    return [head] + [
        f"{way:41}{1e3 * step:5.0f} ({1e3 * low:.0f} to {1e3 * high:.0f}){BATCH / step:7.0f}{own / step:8.2f}"
        for way, step, low, high in rows
    ]


def seconds_a_step(way: str, size: int, steps: int) -> list[float]:
    """Of four rounds of so many steps, after a few that do not count."""
    import keras
    import tensorflow as tf
    from cells import sample_cells

    from training.adam import adam
    from training.batchnorm import fused_training
    from training.config import ModelConfig
    from training.depthwise import roomy_depthwise
    from training.determinism import make_deterministic
    from training.fit import _untuned
    from training.network import build_model

    make_deterministic(0)
    if way == "mixed_bfloat16":
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    model = build_model(ModelConfig(input_size=size))
    optimizer = adam if "as shipped" in way else keras.optimizers.Adam
    model.compile(optimizer(1e-3), "binary_crossentropy")
    x, y = sample_cells(BATCH * steps, size)
    data = tf.data.Dataset.from_tensor_slices((x, y[:, None])).batch(BATCH).cache().repeat().prefetch(2)
    data = data if way.endswith("tuned") else _untuned(data)
    plain = way in ("Keras's own", "mixed_bfloat16")
    roomy = nullcontext() if plain or way == "fused BatchNorm" else roomy_depthwise(model)
    spent = list[float]()
    with nullcontext() if plain else fused_training(model), roomy:
        model.fit(data, steps_per_epoch=3, verbose=0)
        for _ in range(4):
            begun = time.perf_counter()
            model.fit(data, steps_per_epoch=steps, verbose=0)
            spent.append((time.perf_counter() - begun) / steps)
    return spent


if __name__ == "__main__":
    main()
