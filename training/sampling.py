"""The sampling plan: which training images each epoch shows, and in what order; pure and reproducible."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from training.documents import Document

PRIOR_METHODS = {
    "analytic": "from the class shares in the training data and as trained",
    "fitted_on_validation": "fitted on validation, since BatchNorm's statistics are those of natural images",
}


class Prior(Document):
    """What makes a model answer at the natural rate, whatever the class shares it was trained on.

    Attributes:
        shift: what to add to each class's logit.
        method: analytic: from the two mixtures' shares (see `prior_shift`). fitted_on_validation: the constant that
            makes validation's labels most likely, with the first class as the reference.
    """

    shift: tuple[float, ...]
    method: Literal["analytic", "fitted_on_validation"]

    def on_outputs(self, outputs: int) -> np.ndarray:
        """The shift of each of a network's logits, shape (outputs,): for one sigmoid unit, that of its log odds."""
        return np.array([self.shift[1] - self.shift[0]] if outputs == 1 else self.shift)

    def corrected(self, logits: np.ndarray) -> np.ndarray:
        """Logits (n, outputs) as the served model gives them."""
        return logits + self.on_outputs(logits.shape[1])


class SamplingPlan(Document):
    """How the training split is shown.

    Attributes:
        images: content hashes of the training images, in a fixed order.
        labels: each image's class, as an index into `classes`.
        rows_per_epoch: rows an epoch draws from each pool; one pool a class when oversampling, else one pool of all.
        natural_share: each class's share of the training split.
        trained_share: each class's share of what training sees.
    """

    strategy: str
    seed: int
    classes: tuple[str, ...]
    images: tuple[str, ...]
    labels: tuple[int, ...]
    batch_size: int
    steps_per_epoch: int
    rows_per_epoch: tuple[int, ...]
    natural_share: tuple[float, ...]
    trained_share: tuple[float, ...]

    def epoch(self, number: int, stream: str = "train") -> np.ndarray:
        """Image indices of one epoch, in order; shape (steps_per_epoch · batch_size,).

        Each image appears as often as any other of its pool, give or take one.
        `stream` names an independent order: what is trained on, recalibrated on, evaluated on.
        """
        random = np.random.default_rng([self.seed, number, _number(stream)])
        rows = [_fill(pool, count, random) for pool, count in zip(self._pools(), self.rows_per_epoch, strict=True)]
        return random.permutation(np.concatenate(rows))

    def take(self, count: int, stream: str) -> np.ndarray:
        """The first `count` image indices of a stream, epoch after epoch."""
        epochs = math.ceil(count / (self.steps_per_epoch * self.batch_size))
        return np.concatenate([self.epoch(number, stream) for number in range(epochs)])[:count]

    def natural(self, count: int, stream: str) -> np.ndarray:
        """At most `count` different images, drawn without regard to class."""
        return np.random.default_rng([self.seed, _number(stream)]).permutation(len(self.images))[:count]

    def _pools(self) -> list[np.ndarray]:
        labels = np.asarray(self.labels)
        if self.strategy == "none":
            return [np.arange(len(labels))]
        return [np.flatnonzero(labels == label) for label in range(len(self.classes))]


def make_plan(
    labels: Mapping[str, str], classes: Sequence[str], *, strategy: str, batch_size: int, seed: int
) -> SamplingPlan:
    """Plan the epochs of a training split given as content hash -> label.

    Oversampling shows ``ceil(2 · majority / batch)`` full batches an epoch (for two classes), half of them of each
    class, as TensorFlow's tutorial on imbalanced data does.
    """
    images = sorted(labels)
    numbers = [classes.index(labels[image]) for image in images]
    counts = np.bincount(numbers, minlength=len(classes))
    total = len(images) if strategy == "none" else len(classes) * int(counts.max())
    steps = math.ceil(total / batch_size)
    natural = counts / counts.sum()
    trained = natural if strategy == "none" else np.full(len(classes), 1 / len(classes))
    return SamplingPlan(
        strategy=strategy,
        seed=seed,
        classes=tuple(classes),
        images=tuple(images),
        labels=tuple(numbers),
        batch_size=batch_size,
        steps_per_epoch=steps,
        rows_per_epoch=_shared_out(steps * batch_size, 1 if strategy == "none" else len(classes)),
        natural_share=tuple(natural.tolist()),
        trained_share=tuple(trained.tolist()),
    )


def prior_shift(plan: SamplingPlan) -> tuple[float, ...]:
    """What to add to each class's logit so that a model trained on the plan answers at the natural rate.

    ``log π_k − log τ_k`` with π the natural and τ the trained share (Saerens, Latinne & Decaestecker 2002).
    """
    return tuple(math.log(pi) - math.log(tau) for pi, tau in zip(plan.natural_share, plan.trained_share, strict=True))


def _shared_out(total: int, pools: int) -> tuple[int, ...]:
    return tuple(total // pools + (pool < total % pools) for pool in range(pools))


def _fill(pool: np.ndarray, rows: int, random: np.random.Generator) -> np.ndarray:
    whole, rest = divmod(rows, len(pool))
    return np.concatenate([np.tile(pool, whole), random.choice(pool, size=rest, replace=False)])


def _number(stream: str) -> int:
    return int.from_bytes(hashlib.sha256(stream.encode()).digest()[:4], "big")
