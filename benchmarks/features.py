"""What training on features saves beside a plain Keras script.

    python benchmarks/features.py [--size 112 224] [--epochs 15] [--seeds 0 1 2] [--heads 60]

The script of many a tutorial (a frozen base, pooling, two dense layers with dropout, rare images shown as
often as the others, Adam, the tutorial's metrics, early stopping, a checkpoint of the best epoch, `model.fit`) against
the same head on features that are computed once, until the same validation loss. Both from the same pixels in memory.
The second pays for the conversion to ONNX and for every feature, once cold and once when the night before has left
them. How low a loss comes, and when, is luck: many heads are trained either way on the same features, which takes
seconds, and their best losses compared, and the epochs until then.
"""

import argparse
import gc
import logging
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from cells import sample_cells

from training.config import ModelConfig, TrainConfig
from training.determinism import make_deterministic
from training.features import divided, fit_on_features, kept_features
from training.network import backbone_of, build_model
from training.rows import Rows
from training.sampling import make_plan
from training.store import LocalStore

HEAD = (64, 64)
BATCH = 32
PATIENCE = 5
EPOCHS = 30
KINDS = "features", "features known"
Labelled = tuple[np.ndarray, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs="+", default=[112, 224], help="sides, in pixels")
    parser.add_argument("--epochs", type=int, default=15, help="at most, of the plain script, as in the original")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="when a training is there is luck, too")
    parser.add_argument("--heads", type=int, default=60, help="seeds for the comparison of validation losses")
    parser.add_argument("--images", type=int, default=2600, help="by default nearly all of the sample")
    options = parser.parse_args()
    for size in options.size:
        trained = [on_its_own(training, size, options.images, options.epochs, seed) for seed in options.seeds]
        needed = on_its_own(heads, size, options.images, options.epochs, options.heads)
        for name, pairs in zip(KINDS, zip(*trained, strict=True), strict=True):
            print(f"{size} px, {name}: {', '.join(summary(pairs, needed))}", flush=True)


def on_its_own(function: Callable[..., Any], *arguments: int) -> Any:
    """In a process of its own: what Nightshift switches off in TensorFlow cannot be switched on again.

    As in a step of a night, what has been loaded is not looked through for garbage, whoever trains.
    """
    with multiprocessing.get_context("spawn").Pool(1, gc.freeze) as pool:
        return pool.apply(function, arguments)


def cells(size: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    return sample_cells(images, size, defective=0.31)  # as the whole sample


@dataclass(frozen=True)
class Course:
    """A training's validation loss after each epoch, and how many seconds after its beginning that was."""

    losses: list[float]
    seconds: list[float]

    @property
    def best(self) -> int:
        return int(np.argmin(self.losses))

    def reaching(self, other: "Course") -> int:
        """The first epoch that is as good as the other's best, or its own best."""
        goal = min(other.losses)
        return next((epoch for epoch, loss in enumerate(self.losses) if loss <= goal), self.best)

    def lasting(self, epochs: float) -> float:
        """Seconds that so many would take."""
        return float(self.seconds[0] + (epochs - 1) * np.median(np.diff(self.seconds)))

    def until(self, epoch: int) -> str:
        return f"{self.seconds[epoch]:.1f} s (val loss {self.losses[epoch]:.3f} after {epoch + 1} epochs)"


Pair = tuple[Course, Course]


def training(size: int, images: int, epochs: int, seed: int) -> list[Pair]:
    """The plain script's course beside that on features, a pair each of `KINDS`."""
    parts = split(*cells(size, images))
    plain = plain_script(*parts, epochs, seed)
    print(f"training {size} px, seed {seed}: plain Keras {plain.until(plain.best)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        pairs = [(plain, on_features(*parts, Path(folder), seed)) for _ in KINDS]
    for name, (_, ours) in zip(KINDS, pairs, strict=True):
        beside(name, plain, ours)
    return pairs


def beside(name: str, plain: Course, ours: Course) -> None:
    print(f"   {name} {ours.until(ours.reaching(plain))}: ratio {to_same_loss([(plain, ours)]):.1f}", flush=True)
    print(
        f"      until early stopping: plain {plain.seconds[-1]:.1f} s, {len(plain.losses)} epochs; "
        f"{name} {ours.seconds[-1]:.1f} s, {len(ours.losses)} epochs, val loss {min(ours.losses):.3f}: "
        f"ratio {until_stopping([(plain, ours)]):.1f}",
        flush=True,
    )


def summary(pairs: Sequence[Pair], needed: tuple[float, float]) -> Iterator[str]:
    """Of all seeds: luck decides how many epochs a training needs, many heads how many it needs on average."""
    yield f"{len(pairs)} seeds: ratio {to_same_loss(pairs):.1f} to the same loss"
    yield f"{until_stopping(pairs):.1f} until early stopping"
    yield f"{in_as_many(pairs, needed):.1f} in the epochs that heads need on average"


def to_same_loss(pairs: Sequence[Pair]) -> float:
    """Until the plain script's best validation loss, or where it is not reached until the other's own best."""
    return sums(pairs, lambda plain, ours: (plain.seconds[plain.best], ours.seconds[ours.reaching(plain)]))


def until_stopping(pairs: Sequence[Pair]) -> float:
    return sums(pairs, lambda plain, ours: (plain.seconds[-1], ours.seconds[-1]))


def in_as_many(pairs: Sequence[Pair], epochs: tuple[float, float]) -> float:
    return sums(pairs, lambda plain, ours: (plain.lasting(epochs[0]), ours.lasting(epochs[1])))


def sums(pairs: Sequence[Pair], seconds: Callable[[Course, Course], tuple[float, float]]) -> float:
    """Their ratio, of all seeds."""
    plain, ours = np.sum([seconds(*pair) for pair in pairs], axis=0)
    return float(plain / ours)


def split(x: np.ndarray, y: np.ndarray) -> tuple[Labelled, Labelled]:
    """For training and for validation."""
    held_out = len(x) // 5
    return (x[held_out:], y[held_out:]), (x[:held_out], y[:held_out])


def heads(size: int, images: int, epochs: int, seeds: int) -> tuple[float, float]:
    """After how many epochs validation losses are best, by the plain script and by Nightshift, both on features."""
    x, y = cells(size, images)
    with tempfile.TemporaryDirectory() as folder:
        parts = split(np.asarray(kept(classifier(size), x, Path(folder))), y)
    pairs = [(plain_head(*parts, epochs, seed), head(size, *parts, epochs, seed)) for seed in range(seeds)]
    plain, ours = np.array([[min(course.losses) for course in pair] for pair in pairs]).T
    seconds = np.median([[np.median(np.diff(course.seconds)) for course in pair] for pair in pairs], axis=0)
    needed = 1 + np.mean([[course.best for course in pair] for pair in pairs], axis=0)
    difference = ours - plain
    print(
        f"heads {size} px, {seeds} seeds: best val loss plain {plain.mean():.4f}, Nightshift {ours.mean():.4f}, "
        f"difference {difference.mean():+.4f} (standard error {difference.std(ddof=1) / np.sqrt(seeds):.4f}); "
        f"seeds alone: standard deviation {plain.std(ddof=1):.4f} and {ours.std(ddof=1):.4f}; "
        f"after {needed[0]:.1f} and {needed[1]:.1f} epochs, "
        f"of which one after the first takes {seconds[0]:.2f} s and {seconds[1]:.2f} s",
        flush=True,
    )
    return float(needed[0]), float(needed[1])


def plain_script(train: Labelled, validation: Labelled, epochs: int, seed: int) -> Course:
    """What one would write without Nightshift."""
    keras.utils.set_random_seed(seed)
    base = backbone_of(build_model(ModelConfig(input_size=train[0].shape[1])))
    base.trainable = False
    return plainly([base, keras.layers.GlobalAveragePooling2D()], train, validation, epochs, seed)


def plain_head(train: Labelled, validation: Labelled, epochs: int, seed: int) -> Course:
    """The same when it is given what the base makes of the images."""
    keras.utils.set_random_seed(seed)
    return plainly([keras.Input(train[0].shape[1:])], train, validation, epochs, seed)


def plainly(start: list[Any], train: Labelled, validation: Labelled, epochs: int, seed: int) -> Course:
    dense = [layer for units in HEAD for layer in (keras.layers.Dense(units, "relu"), keras.layers.Dropout(0.5))]
    model = keras.Sequential([*start, *dense, keras.layers.Dense(1, activation="sigmoid")])
    model.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy", metrics=usual_metrics())
    ends = list[float]()
    told = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: ends.append(time.perf_counter()))
    stopping = keras.callbacks.EarlyStopping(monitor="val_loss", patience=PATIENCE)
    shown, steps = oversampled(*train, seed)
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
    return Course(history.history["val_loss"], [end - begun for end in ends])


def usual_metrics() -> list[keras.metrics.Metric]:
    """Those of TensorFlow's tutorial on imbalanced data."""
    metrics = keras.metrics
    return [
        metrics.TruePositives(name="tp"),
        metrics.FalsePositives(name="fp"),
        metrics.TrueNegatives(name="tn"),
        metrics.FalseNegatives(name="fn"),
        metrics.BinaryAccuracy(name="accuracy"),
        metrics.Precision(name="precision"),
        metrics.Recall(name="recall"),
        metrics.AUC(name="auc"),
        metrics.AUC(name="prc", curve="PR"),
    ]


def oversampled(x: np.ndarray, y: np.ndarray, seed: int) -> tuple[tf.data.Dataset, int]:
    """As TensorFlow's tutorial on imbalanced data does it: both classes without end, half of each batch from either."""
    classes = [tf.data.Dataset.from_tensor_slices((x[y == one], y[y == one])) for one in (0, 1)]
    endless = [dataset.shuffle(1000, seed=seed).repeat() for dataset in classes]
    mixed = tf.data.Dataset.sample_from_datasets(endless, weights=[0.5, 0.5], seed=seed)
    return mixed.batch(BATCH).prefetch(2), int(np.ceil(2 * np.sum(y == 0) / BATCH))


def on_features(train: Labelled, validation: Labelled, folder: Path, seed: int) -> Course:
    """The same with Nightshift, the features that are not in the folder included."""
    size = train[0].shape[1]
    model, pixels = classifier(size), np.concatenate([train[0], validation[0]])
    gc.collect()  # what the plain script has left is not looked through at the other's expense
    begun = time.perf_counter()
    first, second = np.split(np.asarray(kept(model, pixels, folder)), [len(train[0])])
    waited = time.perf_counter() - begun
    course = head(size, (first, train[1]), (second, validation[1]), EPOCHS, seed)
    return Course(course.losses, [waited + seconds for seconds in course.seconds])


def classifier(size: int) -> keras.Model:
    return build_model(ModelConfig(input_size=size, policy="features", head_units=HEAD, dropout=0.5))


def kept(model: keras.Model, pixels: np.ndarray, folder: Path) -> Rows:
    """What the model's base makes of images, which are known by their places."""
    names = [f"{place:064d}" for place in range(len(pixels))]

    def chosen(some: list[str]) -> Rows:
        """Not copied, as a night does not copy what it reads from files."""
        return Rows([pixels], np.zeros(len(some), int), np.array([int(name) for name in some]))

    return kept_features(divided(model)[0], names, chosen, LocalStore(folder), 2**33)


def head(size: int, train: Labelled, validation: Labelled, epochs: int, seed: int) -> Course:
    """That of a model of its own, by Nightshift."""
    make_deterministic(seed)
    model = classifier(size)
    # In the order in which the plan sorts them: that of the rows.
    names = {f"{place:064d}": "ab"[label] for place, label in enumerate(train[1])}
    plan = make_plan(names, ("a", "b"), strategy="oversample", batch_size=BATCH, seed=seed)
    config = TrainConfig(batch_size=BATCH, epochs=epochs, learning_rate=1e-3, early_stopping_patience=PATIENCE)
    begun = time.perf_counter()
    with epoch_ends() as ends:
        fitted = fit_on_features(model, plan, train[0], validation, config)
    return Course([row["val_loss"] for row in fitted.history], [end - begun for end in ends])


@contextmanager
def epoch_ends() -> Iterator[list[float]]:
    """The moments at which training says that an epoch is over."""
    ends = list[float]()

    def heard(record: logging.LogRecord) -> bool:
        if record.getMessage().startswith("epoch "):
            ends.append(time.perf_counter())
        return False

    log = logging.getLogger("training.callbacks")
    log.setLevel(logging.INFO)
    log.addFilter(heard)
    yield ends
    log.removeFilter(heard)


if __name__ == "__main__":
    main()
