"""What training on features saves beside a plain Keras script, and how fast features are, beside what the machine can.

    python benchmarks/features.py [--size 80 224] [--epochs 15]

Training: the script of many a tutorial (a frozen base, pooling, two dense layers with dropout, rare images shown as
often as the others, Adam, the usual ten metrics, early stopping, a checkpoint of the best epoch, `model.fit`) against
the same head on features that are computed once, until the same validation loss. Both from the same pixels in memory.
The second pays for the conversion to ONNX and for every feature, once cold and once when the night before has left
them. Extraction: images a second beside `model.predict`, and as a fraction of the multiplications that a large matrix
product gets out of this machine.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from cells import sample_cells

from training.config import ModelConfig, TrainConfig
from training.determinism import make_deterministic
from training.engine import quickest, to_onnx
from training.features import divided, fit_on_features, kept_features
from training.network import backbone_of, build_model
from training.objective import _of_two_classes
from training.sampling import make_plan
from training.store import LocalStore

HEAD = (64, 64)
BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs="+", default=[80, 224], help="sides, in pixels")
    parser.add_argument("--epochs", type=int, default=15, help="at most, of the plain script, as in the original")
    parser.add_argument("--images", type=int, default=2000)
    options = parser.parse_args()
    for size in options.size:
        # Each in a process of its own: what Nightshift switches off in TensorFlow cannot be switched on again.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            pool.apply(measure, (size, options.images, options.epochs))


def measure(size: int, images: int, epochs: int) -> None:
    x, y = sample_cells(images, size, defective=0.31)  # as the whole sample
    extraction(x[:512] if size < 160 else x[:128])
    training(x, y, epochs)


def extraction(x: np.ndarray) -> None:
    """Images a second of each way, interleaved."""
    base, _ = divided(build_model(ModelConfig(input_size=x.shape[1], policy="features")))
    begun = time.perf_counter()
    content = to_onnx(base)
    converting = time.perf_counter() - begun
    answer = quickest(base, lambda: content, x)
    ways: dict[str, Callable[[], object]] = {
        "model.predict": lambda: base.predict(x, batch_size=BATCH, verbose=0),
        "features": lambda: [answer(x[start : start + 16]) for start in range(0, len(x), 16)],
        "matrix product": matrix_product,
    }
    seconds = interleaved(ways, 5)
    rates = {name: len(x) / seconds[name] for name in ("model.predict", "features")}
    peak = 2 * 2048**3 / seconds["matrix product"]
    used = rates["features"] * multiplications(base) * 2 / peak
    print(
        f"extraction {x.shape[1]} px: features {rates['features']:.0f} images/s, model.predict "
        f"{rates['model.predict']:.0f}: ratio {rates['features'] / rates['model.predict']:.2f}; "
        f"{used:.0%} of the {peak / 1e9:.0f} GFLOP/s of a matrix product",
        flush=True,
    )
    saved = 1 / rates["model.predict"] - 1 / rates["features"]
    print(
        f"   converting to ONNX takes {converting:.1f} s, as much as {converting / saved:.0f} images save", flush=True
    )


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


_LEFT, _RIGHT = np.random.default_rng(0).normal(size=(2, 2048, 2048)).astype(np.float32)


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


def training(x: np.ndarray, y: np.ndarray, epochs: int) -> None:
    """Seconds until the plain script's best validation loss."""
    held_out = len(x) // 5
    parts = (x[held_out:], y[held_out:]), (x[:held_out], y[:held_out])
    plain, goal, taken = plain_script(*parts, epochs)
    with tempfile.TemporaryDirectory() as folder:
        cold, loss, needed = on_features(*parts, goal, Path(folder))
        warm, _, _ = on_features(*parts, goal, Path(folder))
    print(
        f"training {x.shape[1]} px: plain Keras {plain:.1f} s (val loss {goal:.3f} after {taken} epochs); features "
        f"{cold:.1f} s ({loss:.3f}, {needed} epochs): ratio {plain / cold:.1f}; features known {warm:.1f} s: "
        f"ratio {plain / warm:.1f}",
        flush=True,
    )


def plain_script(
    train: tuple[np.ndarray, np.ndarray], validation: tuple[np.ndarray, np.ndarray], epochs: int
) -> tuple[float, float, int]:
    """Seconds until the best epoch of what one would write without Nightshift, its validation loss, and epochs."""
    keras.utils.set_random_seed(0)
    base = backbone_of(build_model(ModelConfig(input_size=train[0].shape[1])))
    base.trainable = False
    dense = [layer for units in HEAD for layer in (keras.layers.Dense(units, "relu"), keras.layers.Dropout(0.5))]
    last = keras.layers.Dense(1, activation="sigmoid")
    model = keras.Sequential([base, keras.layers.GlobalAveragePooling2D(), *dense, last])
    model.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy", metrics=list(_of_two_classes()))
    ends = list[float]()
    told = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: ends.append(time.perf_counter()))
    stopping = keras.callbacks.EarlyStopping(monitor="val_loss", patience=5)
    shown, steps = oversampled(*train)
    with tempfile.TemporaryDirectory() as folder:
        best_epoch = keras.callbacks.ModelCheckpoint(f"{folder}/best.keras", monitor="val_loss", save_best_only=True)
        begun = time.perf_counter()
        history = model.fit(
            shown,
            steps_per_epoch=steps,
            epochs=epochs,
            validation_data=tf.data.Dataset.from_tensor_slices(validation).batch(BATCH),
            callbacks=[stopping, best_epoch, told],
            verbose=0,
        )
    losses = history.history["val_loss"]
    best = int(np.argmin(losses))
    return ends[best] - begun, losses[best], best + 1


def oversampled(x: np.ndarray, y: np.ndarray) -> tuple[tf.data.Dataset, int]:
    """As TensorFlow's tutorial on imbalanced data does it: both classes without end, half of each batch from either."""
    classes = [tf.data.Dataset.from_tensor_slices((x[y == one], y[y == one])) for one in (0, 1)]
    endless = [dataset.shuffle(1000, seed=0).repeat() for dataset in classes]
    mixed = tf.data.Dataset.sample_from_datasets(endless, weights=[0.5, 0.5], seed=0)
    return mixed.batch(BATCH).prefetch(2), int(np.ceil(2 * np.sum(y == 0) / BATCH))


def on_features(
    train: tuple[np.ndarray, np.ndarray], validation: tuple[np.ndarray, np.ndarray], goal: float, folder: Path
) -> tuple[float, float, int]:
    """The same, until the validation loss is no more than the goal, or its own best."""
    make_deterministic(0)
    model = build_model(ModelConfig(input_size=train[0].shape[1], policy="features", head_units=HEAD, dropout=0.5))
    pixels = {f"{place:064d}": image for place, image in enumerate(np.concatenate([train[0], validation[0]]))}
    names = {f"{place:064d}": "ab"[label] for place, label in enumerate(train[1])}
    plan = make_plan(names, ("a", "b"), strategy="oversample", batch_size=BATCH, seed=0)
    begun = time.perf_counter()
    found = kept_features(
        divided(model)[0], list(pixels), lambda some: np.stack([pixels[one] for one in some]), LocalStore(folder), 2**33
    )
    computing = time.perf_counter() - begun
    order = np.array([int(name) for name in plan.images])
    begun = time.perf_counter()
    rows = np.asarray(found)
    config = TrainConfig(batch_size=BATCH, epochs=30, learning_rate=1e-3, early_stopping_patience=5)
    fitted = fit_on_features(model, plan, rows[order], (rows[len(train[0]) :], validation[1]), config)
    spent = time.perf_counter() - begun
    losses = [row["val_loss"] for row in fitted.history]
    reached = next((epoch for epoch, loss in enumerate(losses, 1) if loss <= goal), int(np.argmin(losses)) + 1)
    return computing + spent * reached / len(losses), losses[reached - 1], reached


if __name__ == "__main__":
    main()
