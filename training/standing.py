"""Where a training stands: everything that it needs to go on, to the bit, after the process was killed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import keras
import numpy as np

from training.checkpoints import Checkpoint
from training.devices import found, names
from training.provenance import environment

# Keras's own callbacks forget these at the beginning of each `fit`.
_REMEMBERED = ("wait", "best", "best_epoch", "stopped_epoch", "cooldown_counter")


@dataclass
class Best:
    """The best epoch of the last stage so far, counted from 1, by its monitor."""

    epoch: int = 0
    value: float = float("inf")


@dataclass
class Standing:
    """How far training has come; the network's variables apart.

    Attributes:
        stage: the one it is in, 0 before the first.
        epoch: the one it is in, counted from 0 through all stages; `step` of its steps are done.
        stopped: whether early stopping has ended it.
        step_losses: the bare loss of each step of each epoch, the last one perhaps unfinished.
        rows: the history, one row a finished epoch.
        watchers: what early stopping and the like remember, by the callback's name.
    """

    stage: int = 0
    epoch: int = 0
    step: int = 0
    stopped: bool = False
    step_losses: list[list[float]] = field(default_factory=list)
    rows: list[dict[str, float]] = field(default_factory=list)
    best: Best = field(default_factory=Best)
    watchers: dict[str, dict[str, Any]] = field(default_factory=dict)

    def parts(self, epochs: range) -> Iterator[tuple[range, int]]:
        """What is left of a stage's epochs, each part with the steps that are done of its first epoch.

        An epoch that was begun is a part of its own, since `fit` takes the same number of steps in each.
        """
        left = range(max(self.epoch, epochs.start), epochs.stop)
        if self.step and left:
            yield left[:1], self.step
            left = left[1:]
        if left and not self.stopped:
            yield left, 0


@dataclass(frozen=True)
class Variables:
    """The values of all variables that training changes; `best` are the model's after the best epoch."""

    model: Sequence[np.ndarray] = ()
    optimizer: Sequence[np.ndarray] = ()
    metrics: Sequence[np.ndarray] = ()
    best: Sequence[np.ndarray] = ()


def values(variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    return [variable.numpy() for variable in variables]


def assign(variables: Sequence[keras.Variable], arrays: Sequence[np.ndarray]) -> None:
    """Put values back that `values` took; raises ValueError when they are those of another model."""
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def remembered(watcher: keras.callbacks.Callback) -> dict[str, Any]:
    """What an early stopping or a plateau's callback knows."""
    return {name: getattr(watcher, name) for name in _REMEMBERED if hasattr(watcher, name)}


def remind(watcher: keras.callbacks.Callback, known: Mapping[str, Any]) -> None:
    for name, value in known.items():
        setattr(watcher, name, value)


def to_checkpoint(standing: Standing, variables: Variables) -> Checkpoint:
    groups = {group.name: getattr(variables, group.name) for group in fields(variables)}
    arrays = {f"{name}_{place:05d}": array for name, group in groups.items() for place, array in enumerate(group)}
    return Checkpoint({"standing": asdict(standing), "machine": machine()}, arrays)


def from_checkpoint(checkpoint: Checkpoint) -> tuple[Standing, Variables]:
    facts = dict(checkpoint.facts["standing"])
    best = Best(**facts.pop("best"))
    groups = {
        group.name: [checkpoint.arrays[name] for name in sorted(checkpoint.arrays) if name.startswith(f"{group.name}_")]
        for group in fields(Variables)
    }
    return Standing(**facts, best=best), Variables(**groups)


def machine() -> dict[str, Any]:
    """All that the last bits of the numbers depend on besides code, settings and data."""
    here = environment()
    versions = {name: here["versions"].get(name) for name in ("keras", "numpy", "tensorflow")}
    facts = {name: here[name] for name in ("processor", "threads", "python")}
    return {**facts, "devices": names(found()), "versions": versions}


def same_machine(checkpoint: Checkpoint) -> bool:
    """Whether what was saved there can be continued here to the bit."""
    return bool(checkpoint.facts["machine"] == machine())
