"""Whether reading pixels or augmentation hold training up: images a second of the input pipeline, and of training.

    python benchmarks/augmentation.py [--side 80]

Everything that can be changed is changed, in every image; the network is the default one.
"""

import argparse
import time

import keras
import numpy as np

from training.batchnorm import fused_training
from training.config import AugmentConfig, ModelConfig
from training.determinism import make_deterministic
from training.fit import AS_THEY_ARE, _epochs
from training.network import build_model
from training.objective import bare_loss, compile_classifier
from training.sampling import SamplingPlan, make_plan

IMAGES = 256
EVERYTHING = AugmentConfig(flips="both", rotation=15, shift=0.1, brightness=0.1, apply_to="all")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=80)
    side = parser.parse_args().side
    labels = {f"{number:04d}": "ab"[number % 2] for number in range(IMAGES)}
    plan = make_plan(labels, ("a", "b"), strategy="none", batch_size=32, seed=0)
    make_deterministic(0)
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, side, side, 3), dtype=np.uint8)
    for name, augment in (("off", AS_THEY_ARE), ("on", EVERYTHING)):
        alone, trained = pipeline(plan, pixels, augment), training(plan, pixels, augment)
        print(
            f"{side} px, augmentation {name}: pipeline {alone:.0f} images/s, training {trained:.0f}: "
            f"ratio {alone / trained:.0f}",
            flush=True,
        )


def pipeline(plan: SamplingPlan, pixels: np.ndarray, augment: AugmentConfig) -> float:
    epochs = range(5)
    for _ in _epochs(plan, pixels, 1, augment, range(1)):
        pass  # what is traced once
    begun = time.perf_counter()
    for _ in _epochs(plan, pixels, 1, augment, epochs):
        pass
    return len(epochs) * plan.rows / (time.perf_counter() - begun)


def training(plan: SamplingPlan, pixels: np.ndarray, augment: AugmentConfig) -> float:
    """Of the epochs after the first, which traces the graph."""
    model, epochs, begun = build_model(ModelConfig(input_size=pixels.shape[1])), 3, list[float]()
    compile_classifier(model, 1e-3, bare_loss(1))
    clock = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: begun.append(time.perf_counter()))
    data = _epochs(plan, pixels, 1, augment, range(epochs))
    with fused_training(model):
        model.fit(data, steps_per_epoch=plan.steps_per_epoch, epochs=epochs, callbacks=[clock], verbose=0)
    return (epochs - 1) * plan.rows / (time.perf_counter() - begun[1])


if __name__ == "__main__":
    main()
