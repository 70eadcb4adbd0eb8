"""Training images changed at random, the same way for the same seed, epoch and place in it, wherever a run resumes."""

import math
from typing import Any

import numpy as np
from keras import ops

from training.config import AugmentConfig
from training.sampling import SamplingPlan
from training.shards import spans

# Of an affine transform (a0 a1 a2 b0 b1 b2 c0 c1): the output's pixel (x, y) shows the input's
# (a0 x + a1 y + a2, b0 x + b1 y + b2), with c0 = c1 = 0.
_COEFFICIENTS = 8
WIDTH = _COEFFICIENTS + 1
_FLIPPED = {"none": (), "horizontal": (0,), "vertical": (1,), "both": (0, 1)}


def changes(plan: SamplingPlan, config: AugmentConfig, side: int, number: int, stream: str = "train") -> np.ndarray:
    """What happens to each row of an epoch: float32 (rows, 9), an affine transform and the brightness to add.

    Args:
        side: of the square images, in pixels.
        number, stream: as for `SamplingPlan.epoch`.
    """
    order = plan.epoch(number, stream)
    draws = plan.generator(number, f"augment {stream}").uniform(-1, 1, (len(order), 6))
    if config.apply_to == "repeated":
        draws[np.unique(order, return_index=True)[1]] = 0
    transforms = _transforms(draws, config, side)
    return np.column_stack([transforms, draws[:, 5] * config.brightness * 255]).astype(np.float32)


def apply(pixels: Any, changes: Any) -> Any:
    """Change images, uint8 (n, side, side, 3), by `changes` (n, 9); what comes in over the border is mirrored.

    Bilinear, and rounded to whole numbers 0…255; a row that nothing happens to stays as it was to the bit.
    """
    moved = ops.image.affine_transform(
        ops.cast(pixels, "float32"),
        changes[:, :_COEFFICIENTS],
        interpolation="bilinear",
        fill_mode="reflect",
        data_format="channels_last",
    )
    lit = moved + changes[:, _COEFFICIENTS][:, None, None, None]
    return ops.cast(ops.clip(ops.round(lit), 0, 255), "uint8")


def augmented(
    plan: SamplingPlan, config: AugmentConfig, pixels: np.ndarray, stream: str, batch_size: int, first: int = 0
) -> np.ndarray:
    """Pixels of a stream's rows (see `SamplingPlan.take`) from the `first` on, as training would show them there."""
    epochs = range(math.ceil((first + len(pixels)) / plan.rows))
    every = [changes(plan, config, pixels.shape[1], number, stream) for number in epochs]
    own = np.concatenate([*every, np.empty((0, WIDTH), np.float32)])[first:]
    parts = [slice(rows.start, rows.stop) for rows in spans(len(pixels), batch_size)]
    changed = [ops.convert_to_numpy(apply(pixels[part], own[part])) for part in parts]
    return np.concatenate([*changed, pixels[:0]])


def _transforms(draws: np.ndarray, config: AugmentConfig, side: int) -> np.ndarray:
    """Flip about the centre, turn about it, then shift, for draws from −1 to 1; zero leaves an image as it is."""
    signs = np.ones((len(draws), 2))
    for axis in _FLIPPED[config.flips]:
        signs[:, axis] = np.where(draws[:, axis] > 0, -1, 1)
    angle = np.deg2rad(draws[:, 2] * config.rotation)
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], axis=1).reshape(-1, 2, 2)
    linear = turn * signs[:, None, :]
    centre = (side - 1) / 2
    offset = centre - linear.sum(axis=2) * centre + draws[:, 3:5] * config.shift * side
    return np.concatenate([np.dstack([linear, offset]).reshape(-1, 6), np.zeros((len(draws), 2))], axis=1)
