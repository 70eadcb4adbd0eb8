"""Whole networks, interrupted trainings and nights on two devices; `make test` does what `test_devices.py` has."""

import json
import os
import signal
import time
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import OPEN, SOLAR_CELLS, small_settings
from tests.training import test_resume
from tests.training.models import images, small_network
from tests.training.several_devices import afresh, process_with
from tests.training.test_resume import Interrupted, Interrupting
from training import fit as fitting
from training.checkpoints import Checkpoints
from training.config import ModelConfig, RunConfig, TrainConfig, load_config
from training.determinism import make_deterministic
from training.devices import strategy
from training.fit import Fitted, fit
from training.network import build_model
from training.sampling import SamplingPlan, make_plan
from training.steps import run_all
from training.store import LocalStore, open_store

pytestmark = pytest.mark.soak
SIDE, SIZE = 64, 16
Data = tuple[SamplingPlan, np.ndarray, tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def two_devices():
    with process_with(2) as process:
        yield process


def some_data(side: int) -> Data:
    random = np.random.default_rng(0)
    labels = np.arange(64) % 2
    pixels = random.integers(0, 200, (64, side, side, 3)) + labels[:, None, None, None] * 40
    plan = make_plan(
        {f"{place:03d}": "ab"[label] for place, label in enumerate(labels)},
        "ab",
        strategy="oversample",
        batch_size=SIZE,
        seed=0,
    )
    return plan, pixels.astype(np.uint8), (pixels[:21].astype(np.uint8), labels[:21])


def of_network(
    backbone: str, everywhere: bool, floats: str = "float64", policy: str = "trainable"
) -> tuple[list[list[float]], dict[str, np.ndarray]]:
    """The steps' losses and the values that eight of them leave, without dropout."""
    afresh(floats)
    make_deterministic(0)
    weights = "imagenet" if backbone == "efficientnet_lite0" else None
    config = ModelConfig(backbone=backbone, weights=weights, input_size=SIDE, dropout=0, policy=policy)
    with strategy(SIZE).scope() if everywhere else nullcontext():
        model = build_model(config)
    settings = TrainConfig(batch_size=SIZE, monitor_samples=32, learning_rate=1e-4, epochs=2, keep_epoch="last")
    fitted = fit(model, *some_data(SIDE), settings)
    return fitted.step_losses, {variable.path: variable.numpy() for variable in model.variables}


@pytest.mark.parametrize(
    ("backbone", "policy"),
    [
        ("efficientnet_lite0", "trainable"),
        ("efficientnet_lite0", "batch_norm_free"),
        ("mobilenet_v2", "trainable"),
        ("resnet50", "trainable"),
    ],
)
def test_two_devices_train_a_network_as_one_does(backbone, policy):
    with process_with(2) as process:
        one, two = (process.submit(of_network, backbone, both, "float64", policy).result() for both in (False, True))
    np.testing.assert_allclose(two[0], one[0], rtol=1e-9)
    for path, expected in one[1].items():
        np.testing.assert_allclose(two[1][path], expected, rtol=1e-6, atol=1e-8, err_msg=path)


def unsynchronized(both: bool) -> dict[str, np.ndarray]:
    """As Keras trains on several devices when nothing is said."""
    fitting.together = lambda model: model.distribute_strategy.scope()
    return of_network("efficientnet_lite0", both)[1]


def test_left_to_keras_the_statistics_are_those_of_one_devices_images():
    with process_with(2) as process:
        one, two = (process.submit(unsynchronized, both).result() for both in (False, True))
    drifts = [np.abs(two[path] / expected - 1).max() for path, expected in one.items() if "moving_variance" in path]
    assert max(drifts) > 1e-2


def interrupted_data() -> Data:
    x, labels = images(80)
    pixels = np.clip(x * 20 + 60, 0, 255).astype(np.uint8)
    plan = make_plan(
        {f"{place:03d}": "ab"[label] for place, label in enumerate(labels)},
        "ab",
        strategy="none",
        batch_size=16,
        seed=0,
    )
    return plan, pixels, (pixels[:40], np.random.default_rng(1).integers(0, 2, 40))


def continued(folder: Path, left: int = 0) -> tuple[str, Fitted]:
    """The training of `test_resume` on two devices: dropout, images that change, an early end; `left`: checkpoints."""
    afresh("float32")
    store = LocalStore(folder)
    with strategy(16).scope():
        return test_resume.train(
            interrupted_data(), Interrupting(store, left) if left else Checkpoints(store, "training")
        )


@pytest.fixture(scope="module")
def left_alone(two_devices, tmp_path_factory):
    return two_devices.submit(continued, tmp_path_factory.mktemp("left_alone")).result()


@pytest.mark.parametrize("ends", [[7, 6], [3, 14, 2]], ids=str)
def test_on_two_devices_it_ends_as_if_never_interrupted(ends, left_alone, two_devices, tmp_path):
    for left in ends:
        with pytest.raises(Interrupted):
            two_devices.submit(continued, tmp_path, left).result()
    assert two_devices.submit(continued, tmp_path).result() == left_alone


def test_killed_in_an_epoch_on_two_devices_another_process_ends_the_same(left_alone, tmp_path):
    with process_with(2) as process:
        number = process.submit(os.getpid).result()
        training = process.submit(continued, tmp_path)
        while len(found := sorted(tmp_path.rglob("*.npz"))) < 2 or found[-1].name < "00000009":
            time.sleep(0.002)
        os.kill(number, signal.SIGKILL)
        with pytest.raises(BrokenProcessPool):
            training.result()
    with process_with(2) as process:
        assert process.submit(continued, tmp_path).result() == left_alone


def moved(folder: Path, everywhere: bool, left: int) -> tuple[list[list[float]], list[np.ndarray]]:
    """Without dropout and in float64, where the number of devices changes next to nothing."""
    afresh("float64")
    make_deterministic(0)
    with strategy(16).scope() if everywhere else nullcontext():
        model = small_network(momentum=0.9)
    store = LocalStore(folder)
    checkpoints = Interrupting(store, left) if left else Checkpoints(store, "training")
    settings = TrainConfig(batch_size=16, monitor_samples=64, head_epochs=1, epochs=3, checkpoint_seconds=0)
    fitted = fit(model, *interrupted_data(), settings, checkpoints=checkpoints)
    return fitted.step_losses, [variable.numpy() for variable in model.variables]


@pytest.mark.parametrize("first", [False, True], ids=["one_to_two", "two_to_one"])
def test_begun_on_one_number_of_devices_it_goes_on_on_another(first, two_devices, tmp_path):
    expected = two_devices.submit(moved, tmp_path / "alone", first, 0).result()
    with pytest.raises(Interrupted):
        two_devices.submit(moved, tmp_path / "moved", first, 8).result()
    found = two_devices.submit(moved, tmp_path / "moved", not first, 0).result()
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-9)
    for one, other in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


def night(data: Path, folder: Path, settings: dict[str, object]) -> RunConfig:
    config = load_config(SOLAR_CELLS, small_settings(data, folder) | OPEN | settings)
    run_all(config, str(folder / "run"))
    return config


@pytest.mark.parametrize("policy", ["trainable", "features"])
def test_a_night_on_two_devices_says_what_one_on_one_says(policy, few_cells, tmp_path):
    settings = {"model.policy": policy, "model.dropout": 0, "train.learning_rate": 1e-4}
    places = {count: tmp_path / str(count) for count in (1, 2)}
    for count, place in places.items():
        with process_with(count) as process:
            process.submit(night, few_cells, place, settings).result()
    runs = {count: open_store(str(place / "run")) for count, place in places.items()}
    one, two = (json.loads(run.read("evaluation.json")) for run in runs.values())
    assert two["losses"] == pytest.approx(one["losses"], abs=2e-3)
    one, two = (json.loads(run.read("provenance.json"))["steps"]["train"]["devices"] for run in runs.values())
    assert (one, two) == (["CPU:0"], ["CPU:0", "CPU:1"])
