"""Train a head on features that are computed once, which is all that a frozen base ever gives it."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import islice
from typing import Any

import keras
import numpy as np

from training.checkpoints import Checkpoints
from training.computed_once import ComputedOnce, bytes_once
from training.config import TrainConfig
from training.engine import quickest, to_onnx
from training.fit import Fitted, fit
from training.pixels import recipe
from training.processors import usable
from training.progress import followed
from training.rows import Array, Rows
from training.sampling import SamplingPlan
from training.store import Store
from training.threads import in_order

log = logging.getLogger(__name__)
# Of so many pixels at once, activations mostly stay in the processor's caches; fewer read the weights too often. More
# images would leave some threads without any.
_PIXELS_AT_ONCE, _IMAGES_AT_ONCE = 2**16, 32
# Training reads features again in every epoch; so many bytes of them it holds in memory, which is quicker.
_IN_MEMORY = 2**28
# A step of a head takes some 2 ms, and a call of it from Python as long again; so many are a few seconds' work.
_STEPS = 1024


def fit_on_features(
    model: keras.Model,
    plan: SamplingPlan,
    found: Array,
    validation: tuple[Array, np.ndarray],
    config: TrainConfig,
    checkpoints: Checkpoints | None = None,
) -> Fitted:
    """`fit` of the head alone, on `features` instead of pixels; errors and what it leaves are the same.

    Args:
        model: a classifier of `build_model`; the head's layers are its own.
        found: of the training images, (n, channels), in the order of ``plan.images``.
        validation: features and class numbers.
    """
    _, head = divided(model)
    held_out, labels = validation
    return fit(
        head,
        plan,
        _at_hand(found),
        (_at_hand(held_out), labels),
        config,
        checkpoints=checkpoints,
        steps_per_execution=_steps_per_execution(plan.steps_per_epoch),
    )


def _steps_per_execution(steps: int) -> int:
    """An epoch's, or the most that divide them."""
    return max(count for count in range(1, min(steps, _STEPS) + 1) if steps % count == 0)


def _at_hand(rows: Array) -> Array:
    return np.asarray(rows) if rows.nbytes <= _IN_MEMORY else rows


def divided(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """The model up to its pooled features (n, channels), and from these to the probabilities, over the same layers."""
    pool = model.get_layer("pool")
    x = start = keras.Input(pool.output.shape[1:], name="features")
    for layer in model.layers[model.layers.index(pool) + 1 :]:
        x = layer(x)
    with model.distribute_strategy.scope():
        return keras.Model(model.input, pool.output), keras.Model(start, x, name="head")


def kept_features(
    base: keras.Model, images: list[str], pixels: Callable[[list[str]], Array], kept: Store, most_bytes: int
) -> Rows:
    """What the base makes of images in inference mode, float32 (n, channels); what is in `kept` is not computed again.

    Args:
        base: from pixels (n, size, size, 3) to features.
        images: SHA-256 of each.
        pixels: of some of them.
    """
    made_by = _recipe(base)

    def compute(missing: list[str]) -> Iterator[np.ndarray]:
        return features(base, lambda: bytes_once(kept, "network", made_by, lambda: to_onnx(base)), pixels(missing))

    return ComputedOnce(kept, "features", made_by, base.output_shape[1:], "float32", most_bytes).rows(images, compute)


def features(base: keras.Model, content: Callable[[], bytes], pixels: Array) -> Iterator[np.ndarray]:
    """What the base makes of each image in inference mode: float32 (channels,).

    Always of so many images at once, so that an image's features do not depend on how many there are.

    Args:
        content: gives what `to_onnx` makes of the base.
    """
    at_once = images_at_once(pixels.shape[1])
    answer = quickest(base, content, pixels[:at_once])
    starts = range(0, len(pixels), at_once)
    asked = (_filled(pixels[start : start + at_once], at_once) for start in starts)
    found = in_order(answer, asked, usable())
    rows = (row for batch in found for row in batch)
    return followed(islice(rows, len(pixels)), log, "features", len(pixels), "images")


def images_at_once(side: int) -> int:
    """How many images of so many pixels' side a thread is given together."""
    return min(_IMAGES_AT_ONCE, max(1, _PIXELS_AT_ONCE // side**2))


def _filled(batch: np.ndarray, rows: int) -> np.ndarray:
    if len(batch) == rows:
        return batch  # `pad` would copy it
    return np.pad(batch, [(0, rows - len(batch)), (0, 0), (0, 0), (0, 0)])


def _recipe(base: keras.Model) -> dict[str, Any]:
    """All that decides an image's features besides its content; but names, which are numbered as models are built."""
    layers = [layer for layer in base._flatten_layers() if not isinstance(layer, keras.Model)]
    configs = [[type(layer).__name__, layer.get_config() | {"name": None}] for layer in layers]
    weights = hashlib.sha256()
    for weight in base.weights:
        weights.update(weight.numpy().tobytes())
    versions = {name: version(name) for name in ("keras", "tensorflow", "tf2onnx", "onnxruntime")}
    layout = hashlib.sha256(json.dumps(configs, default=str).encode()).hexdigest()
    return {"pixels": recipe(base.input_shape[1]), "layers": layout, "weights": weights.hexdigest(), **versions}
