"""Does the gate ring when it should, and only then? Many cheap runs whose true gap is known.

    python benchmarks/gate_power.py [--runs 300] [--out docs/gate_power.png]

A small BatchNorm network on sample images of 24 px, its weights reset for each run and its functions traced once.
Runs differ in momentum and in the number of steps, so their statistics lag more or less. The gate,
with its default limits and without recalibration, sees what it sees of a night: 16 batches. The truth is measured on
all 1,600 images. Runs are made until there are --runs of both kinds: true gaps all below the limits (an
alarm is false), and a true BatchNorm gap of at least 0.25 nats (no alarm is a miss).
"""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import matplotlib
import numpy as np
import tensorflow as tf
from cells import sample_cells
from scipy.stats import binomtest

from training.config import GateConfig
from training.gap import Telescope, explain
from training.logits import cross_entropies, in_batches
from training.verdict import judge, loss_gap_limit

matplotlib.use("agg")
from matplotlib import pyplot as plt

MOMENTA = (0.95, 0.98, 0.985, 0.99, 0.993, 0.995, 0.996, 0.997, 0.998, 0.999)
BATCH, FIT_STEPS, LISTED = 32, 32, 16 * 32
MISS_FROM = 0.25


@dataclass(frozen=True)
class Outcome:
    """One run: what is true of it, and what the gate said."""

    momentum: float
    steps: int
    batch_norm_gap: float
    loss_gap: float
    loss_gap_limit: float
    refused: bool

    def harmless(self, gate: GateConfig) -> bool:
        return self.loss_gap <= self.loss_gap_limit and self.batch_norm_gap <= (gate.max_batch_norm_gap or np.inf)


class Bench:
    """A network with one momentum, trained again and again from its first weights."""

    def __init__(self, momentum: float, pixels: np.ndarray, labels: np.ndarray) -> None:
        keras.utils.set_random_seed(0)
        self.momentum, self.pixels, self.labels = momentum, pixels, labels
        self.model = _network(momentum, pixels.shape[1:])
        self.first = [variable.numpy() for variable in self.model.variables]
        self.optimizer = keras.optimizers.Adam(0.003)
        self.optimizer.build(self.model.trainable_variables)
        self.untouched = [variable.numpy() for variable in self.optimizer.variables]
        self.telescope = Telescope(self.model)
        self._step = tf.function(self._train)

    def run(self, random: np.random.Generator, gate: GateConfig) -> Outcome:
        """Train for a while, let the gate judge 16 batches, and measure the truth on all images."""
        self._reset(random)
        steps = int(random.integers(20, 160))
        fit = self._fit(steps, random)
        rows = random.choice(len(self.pixels), LISTED)
        x, y = self.pixels[rows], self.labels[rows]
        verdict = judge(explain(self.telescope, x, y, fit_loss=fit, seed=int(random.integers(2**31))), gate)
        served, batch_statistics = self._truth(random)
        limit = loss_gap_limit(gate, fit.mean()) or np.inf
        return Outcome(
            self.momentum, steps, served - batch_statistics, served - fit.mean(), limit, not verdict.accepted
        )

    def _truth(self, random: np.random.Generator) -> tuple[float, float]:
        """Loss of all images, on moving and on batch statistics."""
        rows = random.permutation(len(self.pixels))
        x, y = self.pixels[rows], self.labels[rows]
        served = cross_entropies(in_batches(self.telescope.infer, x, 400), y).mean()
        return float(served), float(cross_entropies(in_batches(self.telescope.on_batch_statistics, x, BATCH), y).mean())

    def _reset(self, random: np.random.Generator) -> None:
        for variable, value in zip(self.model.variables, self.first, strict=True):
            noise = random.normal(0, 0.02, value.shape) if variable.trainable else 0
            variable.assign(value + noise)
        for variable, value in zip(self.optimizer.variables, self.untouched, strict=True):
            variable.assign(value)

    def _fit(self, steps: int, random: np.random.Generator) -> np.ndarray:
        """Losses of the last steps, in which the weights hardly move any more."""
        losses = []
        for number in range(steps + FIT_STEPS):
            self.optimizer.learning_rate.assign(0.003 if number < steps else 0.00003)
            rows = random.integers(len(self.pixels), size=BATCH)
            losses.append(float(self._step(self.pixels[rows], self.labels[rows].astype(np.float32)[:, None])))
        return np.array(losses[steps:])

    def _train(self, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(keras.losses.binary_crossentropy(y, self.model(x, training=True)))
        variables = self.model.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300, help="of each kind")
    parser.add_argument("--out", type=Path, default=Path("docs/gate_power.png"), help="the curve")
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)  # in so small a network a second thread only waits
    tf.config.threading.set_inter_op_parallelism_threads(1)
    gate, random = GateConfig(), np.random.default_rng(0)
    pixels, labels = sample_cells(1600, 24)
    benches = [Bench(momentum, pixels.astype(np.float32), labels) for momentum in MOMENTA]
    outcomes: list[Outcome] = []
    while min(len(kind) for kind in kinds(outcomes, gate)) < options.runs:
        outcomes.append(benches[len(outcomes) % len(benches)].run(random, gate))
        if len(outcomes) % 50 == 0:
            harmless, harmful = kinds(outcomes, gate)
            print(f"{len(outcomes)} runs: {len(harmless)} harmless, {len(harmful)} with a gap", flush=True)
    report(outcomes, gate, options.runs)
    draw(outcomes, gate, options.out)


def kinds(outcomes: list[Outcome], gate: GateConfig) -> tuple[list[Outcome], list[Outcome]]:
    harmless = [outcome for outcome in outcomes if outcome.harmless(gate)]
    return harmless, [outcome for outcome in outcomes if outcome.batch_norm_gap >= MISS_FROM]


def report(outcomes: list[Outcome], gate: GateConfig, runs: int) -> None:
    harmless, harmful = (kind[:runs] for kind in kinds(outcomes, gate))
    for name, wrong, total in (
        ("false alarms", sum(outcome.refused for outcome in harmless), len(harmless)),
        ("misses", sum(not outcome.refused for outcome in harmful), len(harmful)),
    ):
        high = binomtest(wrong, total).proportion_ci(0.95, method="exact").high
        print(f"{name:14}{wrong} of {total} (95 % interval up to {high:.1%})")


def draw(outcomes: list[Outcome], gate: GateConfig, path: Path) -> None:
    """The share refused against the true BatchNorm gap."""
    gaps, refused = np.array([(o.batch_norm_gap, o.refused) for o in outcomes if np.isfinite(o.batch_norm_gap)]).T
    edges = np.array([-0.05, 0, 0.05, 0.1, 0.125, 0.15, 0.175, 0.2, 0.225, 0.25, 0.3, 0.4, 0.6, 1.0])
    places = np.digitize(gaps, edges)
    shown = [number for number in range(1, len(edges)) if (places == number).any()]
    share = [refused[places == number].mean() for number in shown]
    counts = [int((places == number).sum()) for number in shown]
    ends = [binomtest(round(s * n), n).proportion_ci(0.95, method="wilson") for s, n in zip(share, counts, strict=True)]
    middle = [gaps[places == number].mean() for number in shown]
    figure, axes = plt.subplots(figsize=(7.6, 3.6), layout="constrained")
    below = [max(0, s - end.low) for s, end in zip(share, ends, strict=True)]
    above = [max(0, end.high - s) for s, end in zip(share, ends, strict=True)]
    axes.errorbar(middle, share, yerr=[below, above], marker="o", color="#2b3a55", capsize=2)
    axes.axvline(gate.max_batch_norm_gap, color="#2e7d5b", linestyle="--", label="limit (gate.max_batch_norm_gap)")
    axes.axvline(MISS_FROM, color="#c0392b", linestyle=":", label="must be refused from here")
    axes.set(xlabel="true BatchNorm gap, D − C (nats)", ylabel="share of runs refused", ylim=(-0.03, 1.03))
    axes.set_title(f"What the gate refuses, over {len(outcomes)} runs (95 % intervals)", fontsize=11)
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def _network(momentum: float, shape: tuple[int, ...]) -> keras.Model:
    layers = keras.layers
    blocks = [
        part
        for filters in (8, 16, 16)
        for part in (layers.Conv2D(filters, 3, strides=2), layers.BatchNormalization(momentum=momentum), layers.ReLU())
    ]
    head = [layers.GlobalAveragePooling2D(), layers.Dense(1, activation="sigmoid")]
    return keras.Sequential([keras.Input(shape), layers.Rescaling(1 / 32), *blocks, *head])


if __name__ == "__main__":
    main()
