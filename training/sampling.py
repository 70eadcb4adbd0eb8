"""The sampling plan: which training images each epoch shows, and in what order; pure and reproducible."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from training.documents import Document
from training.errors import DataRejected, received

# Strategies that draw rows without regard to class.
_AS_THEY_COME = ("class_weight", "none")
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


class ClassPlan(Document):
    """How one class is shown.

    Attributes:
        images: how many there are.
        rows_per_epoch: fewest and most rows of an epoch that show one.
        times_per_epoch: fewest and most times that an epoch shows any one image.
        weight: of each row's loss while training.
    """

    label: str
    images: int
    rows_per_epoch: tuple[int, int]
    times_per_epoch: tuple[int, int]
    weight: float


class SamplingPlan(Document):
    """How the training split is shown.

    Attributes:
        images: content hashes of the training images, in a fixed order.
        labels: each image's class, as an index into `classes`.
        rows_per_epoch: rows an epoch draws from each pool; one pool a class when over- or undersampling, else one of
            all.
        natural_share: each class's share of the training split.
        shown_share: each class's share of the rows.
        trained_share: each class's share of what training sees: its rows, times their weight.
        per_class: the same for each class, in plain numbers.
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
    shown_share: tuple[float, ...]
    trained_share: tuple[float, ...]
    per_class: tuple[ClassPlan, ...]

    @property
    def rows(self) -> int:
        """How many an epoch has."""
        return self.steps_per_epoch * self.batch_size

    @property
    def class_weights(self) -> dict[int, float] | None:
        """The weight of each class's losses while training; None: all the same."""
        return dict(enumerate(found.weight for found in self.per_class)) if self.strategy == "class_weight" else None

    def epoch(self, number: int, stream: str = "train") -> np.ndarray:
        """Image indices of one epoch, in order; shape (steps_per_epoch · batch_size,).

        Each image appears as often as any other of its pool, give or take one.
        `stream` names an independent order: what is trained on, recalibrated on, evaluated on.
        """
        random = self.generator(number, stream)
        rows = [_fill(pool, count, random) for pool, count in zip(self._pools(), self.rows_per_epoch, strict=True)]
        return random.permutation(np.concatenate(rows))

    def generator(self, number: int, stream: str) -> np.random.Generator:
        """What an epoch's draws come from, the same however often a run was resumed."""
        return np.random.default_rng([self.seed, number, _number(stream)])

    def times(self, number: int, stream: str = "train") -> np.ndarray:
        """How often each image appears in an epoch, shape (images,)."""
        return np.bincount(self.epoch(number, stream), minlength=len(self.images))

    def take(self, count: int, stream: str) -> np.ndarray:
        """The first `count` image indices of a stream, epoch after epoch."""
        epochs = math.ceil(count / self.rows)
        return np.concatenate([self.epoch(number, stream) for number in range(epochs)])[:count]

    def natural(self, count: int, stream: str) -> np.ndarray:
        """At most `count` different images, drawn without regard to class."""
        return np.random.default_rng([self.seed, _number(stream)]).permutation(len(self.images))[:count]

    def _pools(self) -> list[np.ndarray]:
        labels = np.asarray(self.labels)
        if self.strategy in _AS_THEY_COME:
            return [np.arange(len(labels))]
        return [np.flatnonzero(labels == label) for label in range(len(self.classes))]


def make_plan(
    labels: Mapping[str, str], classes: Sequence[str], *, strategy: str, batch_size: int, seed: int
) -> SamplingPlan:
    """Plan the epochs of a training split given as content hash -> label.

    Over- and undersampling show every class as often as the largest or smallest has images, the rest as many rows as
    there are images; all in full batches, rounded up, as TensorFlow's tutorial on imbalanced data does.

    Raises:
        DataRejected: a class has no image.
    """
    images = sorted(labels)
    numbers = [classes.index(labels[image]) for image in images]
    counts = np.bincount(numbers, minlength=len(classes))
    _require_every_class(counts, classes)
    pooled = strategy in _AS_THEY_COME
    steps = math.ceil(_rows(strategy, counts) / batch_size)
    rows = _shared_out(steps * batch_size, 1 if pooled else len(classes))
    natural = tuple((counts / counts.sum()).tolist())
    equal = (1 / len(classes),) * len(classes)
    return SamplingPlan(
        strategy=strategy,
        seed=seed,
        classes=tuple(classes),
        images=tuple(images),
        labels=tuple(numbers),
        batch_size=batch_size,
        steps_per_epoch=steps,
        rows_per_epoch=rows,
        natural_share=natural,
        shown_share=natural if pooled else equal,
        trained_share=natural if strategy == "none" else equal,
        per_class=tuple(_class_plans(classes, counts.tolist(), rows, weighted=strategy == "class_weight")),
    )


def prior_shift(plan: SamplingPlan) -> tuple[float, ...]:
    """What to add to each class's logit so that a model trained on the plan answers at the natural rate.

    ``log π_k − log τ_k`` with π the natural and τ the trained share (Saerens, Latinne & Decaestecker 2002).
    """
    return tuple(math.log(pi) - math.log(tau) for pi, tau in zip(plan.natural_share, plan.trained_share, strict=True))


def _require_every_class(counts: np.ndarray, classes: Sequence[str]) -> None:
    for label, count in zip(classes, counts, strict=True):
        if not count:
            raise DataRejected(
                received("training split", f"no image of class {label!r}", "images of every class"),
                remedy="Add images of that class, or take it out of data.classes.",
            )


def _rows(strategy: str, counts: np.ndarray) -> int:
    """What an epoch shows before it is rounded up to full batches."""
    each = {"oversample": counts.max(), "undersample": counts.min()}
    return len(counts) * int(each[strategy]) if strategy in each else int(counts.sum())


def _class_plans(
    classes: Sequence[str], counts: Sequence[int], rows: tuple[int, ...], *, weighted: bool
) -> Iterator[ClassPlan]:
    """Each class's part of its pool, which is its own or that of all."""
    total, pooled = sum(counts), len(rows) == 1
    for label, count, drawn in zip(classes, counts, rows * len(classes) if pooled else rows, strict=True):
        pool = total if pooled else count
        whole, rest = divmod(drawn, pool)
        # Which images of the pool come once more is drawn anew each epoch.
        more = max(0, rest - (pool - count)), min(rest, count)
        yield ClassPlan(
            label=label,
            images=count,
            rows_per_epoch=(whole * count + more[0], whole * count + more[1]),
            times_per_epoch=(whole, whole + (rest > 0)),
            weight=total / (len(classes) * count) if weighted else 1.0,
        )


def _shared_out(total: int, pools: int) -> tuple[int, ...]:
    return tuple(total // pools + (pool < total % pools) for pool in range(pools))


def _fill(pool: np.ndarray, rows: int, random: np.random.Generator) -> np.ndarray:
    whole, rest = divmod(rows, len(pool))
    return np.concatenate([np.tile(pool, whole), random.choice(pool, size=rest, replace=False)])


def _number(stream: str) -> int:
    return int.from_bytes(hashlib.sha256(stream.encode()).digest()[:4], "big")
