"""A training that is interrupted anywhere ends as the one that was not, to the bit."""

import hashlib

import numpy as np
import pytest

from tests.training.models import images, small_network
from training.checkpoints import Checkpoints
from training.config import AugmentConfig, TrainConfig
from training.determinism import make_deterministic
from training.errors import Diverged
from training.fit import fit
from training.sampling import make_plan
from training.store import LocalStore

# A stage of the head alone, a learning rate that falls, early stopping that fires, dropout, and images that change.
CONFIG = TrainConfig(
    batch_size=16,
    monitor_samples=64,
    learning_rate=0.01,
    head_epochs=1,
    epochs=9,
    early_stopping_patience=3,
    reduce_lr_patience=1,
    checkpoint_seconds=0,
)
AUGMENT = AugmentConfig(flips="both", shift=0.1, brightness=0.1, apply_to="all")


class Interrupted(Exception):
    pass


class Interrupting(Checkpoints):
    """Ends the process's work after so many checkpoints, as a kill would: nothing of it is left but the store."""

    def __init__(self, store, left):
        super().__init__(store, "training")
        self.left = left

    def save(self, checkpoint):
        super().save(checkpoint)
        self.left -= 1
        if not self.left:
            raise Interrupted


@pytest.fixture(scope="module")
def data():
    x, labels = images(80)
    pixels = np.clip(x * 20 + 60, 0, 255).astype(np.uint8)
    names = {f"{place:03d}": "ab"[label] for place, label in enumerate(labels)}
    plan = make_plan(names, ("a", "b"), strategy="oversample", batch_size=16, seed=0)
    return plan, pixels, (pixels[:40], np.random.default_rng(1).integers(0, 2, 40))


def train(data, checkpoints, steps_per_execution=1):
    """A process's whole work; returns everything it leaves."""
    make_deterministic(0)
    model = small_network(dropout=0.3)
    fitted = fit(model, *data, CONFIG, AUGMENT, checkpoints, steps_per_execution)
    variables = [*model.variables, *model.optimizer.variables]
    digest = hashlib.sha256(b"".join(variable.numpy().tobytes() for variable in variables)).hexdigest()
    return digest, fitted


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """The store of a training that was left alone, and everything it left."""
    store = LocalStore(tmp_path_factory.mktemp("finished"))
    return store, train(data, Checkpoints(store, "training"))


def test_it_is_worth_interrupting(finished):
    _, (_, fitted) = finished
    rows = fitted.history
    assert 1 < fitted.kept_epoch < len(rows) < 10
    assert len({row["learning_rate"] for row in rows[1:]}) > 1


# Of the checkpoints that a process writes, the one after which it ends.
ONCE = [[1], [5], [7], [14], [26], [3, 8, 2, 13]]


@pytest.mark.parametrize("ends", [[6, 1], *(pytest.param(ends, marks=pytest.mark.soak) for ends in ONCE)], ids=str)
def test_it_ends_as_if_never_interrupted(ends, data, finished, tmp_path):
    store = LocalStore(tmp_path)
    for left in ends:
        with pytest.raises(Interrupted):
            train(data, Interrupting(store, left))
    assert train(data, Checkpoints(store, "training")) == finished[1]


def test_so_does_one_whose_steps_are_taken_several_at_once(data, finished, tmp_path):
    """A checkpoint within an epoch is one between two of Keras's executions."""
    steps = data[0].steps_per_epoch
    assert steps % 2 == 0 and steps > 2
    left = train(data, Checkpoints(LocalStore(tmp_path / "alone"), "training"), 2)
    np.testing.assert_allclose(left[1].step_losses[0], finished[1][1].step_losses[0], rtol=1e-4)
    with pytest.raises(Interrupted):
        train(data, Interrupting(LocalStore(tmp_path / "ended"), steps // 2 + 1), 2)
    assert train(data, Checkpoints(LocalStore(tmp_path / "ended"), "training"), 2) == left


def test_interrupted_after_its_last_epoch_nothing_is_trained_again(data, finished, caplog):
    store, left = finished
    with caplog.at_level("INFO", logger="training"):
        assert train(data, Checkpoints(store, "training")) == left
    assert [record.message for record in caplog.records if "epoch" in record.message] == [
        f"going on from epoch {len(left[1].history) + 1}/10, after 0 of its steps"
    ]


def test_a_damaged_checkpoint_and_another_machine_are_told_of(data, finished, tmp_path, caplog, monkeypatch):
    """The checkpoint before the damaged one is used; this machine only says that it is another one."""
    with pytest.raises(Interrupted):
        train(data, Interrupting(LocalStore(tmp_path), 12))
    newest = max(tmp_path.rglob("*.npz"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    monkeypatch.setattr("training.standing.machine", lambda: {"processor": "another one"})
    assert train(data, Checkpoints(LocalStore(tmp_path), "training")) == finished[1]
    assert f"{newest.name} is damaged" in caplog.text and "another machine began this" in caplog.text


def test_what_was_good_before_a_loss_became_infinite_is_kept(data, tmp_path):
    plan, pixels, validation = data
    order, checkpoints = plan.epoch(0), Checkpoints(LocalStore(tmp_path), "training")
    latest = max(set(order), key=lambda image: np.argmax(order == image))
    broken = np.where(np.arange(len(pixels)) == latest, np.nan, 1)[:, None, None, None] * pixels
    make_deterministic(0)
    with pytest.raises(Diverged) as caught:
        fit(small_network(), plan, broken.astype(np.float32), validation, CONFIG, checkpoints=checkpoints)
    step = int(np.argmax(order == latest)) // 16
    assert f"epoch 1, step {step + 1}" in caught.value.message
    kept = checkpoints.newest()
    assert kept.facts["standing"]["step"] == step > 0
    assert all(np.isfinite(array).all() for array in kept.arrays.values())
