"""Nights that go on from the champion: the same network, fewer epochs, whole training when it is due."""

import json
import shutil
from datetime import UTC, datetime

import numpy as np
import pytest

from tests.conftest import OPEN, SOLAR_CELLS, small_settings
from tests.training.test_champion import entry
from training import champion, network
from training.comparison import served_logits
from training.config import load_config
from training.logits import in_batches, inference_logits
from training.network import build_model
from training.nights import Night, records_of
from training.run_folder import as_json, open_run
from training.step_names import STEPS
from training.steps import run_all, run_step
from training.steps.inputs import pixels, raw_images, split_images
from training.store import open_store
from training.warm_start import decide, go_on, shortened


@pytest.fixture
def config(small):
    return small.model_copy(update={"train": small.train.model_copy(update={"full_every": 3, "warm_epochs": 2})})


def promoted(config, **changes):
    known = {"classes": config.data.classes, "prior_shift": (-0.5,)}
    champion.append(open_store(config.store.champion), entry(1, **known | changes))


@pytest.mark.parametrize(("before", "expected"), [(0, (1, 1)), (1, (1, 2)), (2, (None, 0)), (7, (None, 0))])
def test_one_goes_on_until_the_turn_of_a_whole_training(config, before, expected):
    promoted(config, warm_nights=before)
    found = decide(config, "run")
    assert (found.champion, found.nights) == expected


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"classes": ("other", "names")}, "the champion knows other classes"),
        ({"prior_shift": ()}, "of a version that did not say"),
        ({"warm_nights": 2}, "the turn of a whole training"),
    ],
)
def test_what_does_not_suit_is_not_gone_on_from(config, changes, told):
    promoted(config, **changes)
    found = decide(config, "run")
    assert (found.champion, found.nights) == (None, 0) and told in found.reason


def test_without_a_champion_and_when_it_is_off_training_is_whole(config, small):
    assert decide(config, "run").reason == "there is no champion"
    promoted(config)
    assert decide(small, "run").champion is None


@pytest.mark.parametrize(
    ("outcome", "step", "goes_on"),
    [
        ("failed", "evaluate", False),
        ("failed", "promote", False),
        ("failed", "ingest", True),
        ("promoted", "promote", True),
    ],
)
def test_after_a_refusal_training_is_whole(config, outcome, step, goes_on):
    promoted(config)
    before = Night(run="before", began=datetime(2026, 1, 1, tzinfo=UTC).isoformat(), outcome=outcome, step=step)
    records_of(config.store.runs, config.name).write("before.json", as_json(before.tree()))
    assert (decide(config, "run").champion is not None) is goes_on


def test_the_network_begins_with_what_the_champion_answers_but_for_the_prior(night):
    folder, config = night
    store = open_store(config.store.champion)
    head = champion.current(store)
    model = build_model(config.model)
    assert go_on(model, store, head.number)
    run = open_run(config, str(folder / "run"))
    found = in_batches(inference_logits(model), pixels(run, split_images(run, "validation")), 16)
    served = served_logits(network.from_bytes(champion.read_model(store, head)), raw_images(run, "validation"))
    np.testing.assert_allclose(found + np.array(head.prior_shift), served, atol=1e-4)
    assert head.prior_shift[0] != 0


@pytest.mark.parametrize("change", [{"input_size": 40}, {"head_units": (8,)}])
def test_another_network_is_left_as_it_was_built(night, change):
    _, config = night
    model = build_model(config.model.model_copy(update=change))
    before = [value.copy() for value in model.get_weights()]
    assert not go_on(model, open_store(config.store.champion), 1)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_damaged_champion_is_not_gone_on_from(night, tmp_path):
    _, config = night
    old, new = open_store(config.store.champion), open_store(str(tmp_path))
    for stored in old.list():
        new.write(stored.key, old.read(stored.key))
    new.write(champion.current(new).model, b"flipped")
    assert not go_on(build_model(config.model), new, 1)


def weights(folder):
    return network.from_bytes((folder / "run" / "checkpoint" / "model.keras").read_bytes()).get_weights()


def test_a_night_goes_on_and_stays_with_what_it_began_with(night, tmp_path):
    """Also when somebody else is promoted before it is called again."""
    folder, shipped = night
    shutil.copytree(folder / "champion", tmp_path / "champion")
    store = shipped.store.model_copy(update={"champion": str(tmp_path / "champion")})
    train = shipped.train.model_copy(update={"full_every": 2, "epochs": 3, "warm_epochs": 1})
    config, run = shipped.model_copy(update={"store": store, "train": train}), str(tmp_path / "run")
    for step in STEPS[:4]:
        run_step(step, config, run)
    steps = json.loads((tmp_path / "run" / "checkpoint" / "steps.json").read_text())
    assert (steps["warm_start"]["champion"], steps["warm_start"]["nights"], len(steps["losses"])) == (1, 1, 1)
    champions = open_store(config.store.champion)
    champion.append(champions, champion.current(champions).model_copy(update={"number": 2, "warm_nights": 1}))
    before = weights(tmp_path)
    (tmp_path / "run" / "done" / "train.json").unlink()
    run_step("train", config, run)
    for old, new in zip(before, weights(tmp_path), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.soak
def test_the_second_night_is_judged_as_every_other_and_the_third_is_whole(few_cells, tmp_path):
    settings = {"train.full_every": 2, "train.epochs": 2, "model.policy": "features"}
    settings |= {"gate.max_champion_loss_increase": 50, "gate.max_champion_auc_decrease": 1}
    config = load_config(SOLAR_CELLS, small_settings(few_cells, tmp_path) | OPEN | settings)
    epochs = []
    for name in ("first", "second", "third"):
        run_all(config, str(tmp_path / name))
        steps = json.loads((tmp_path / name / "checkpoint" / "steps.json").read_text())
        epochs.append((steps["warm_start"]["champion"], len(steps["losses"])))
    assert epochs == [(None, 2), (1, 1), (None, 2)]
    assert [one.warm_nights for one in champion.history(open_store(config.store.champion))] == [0, 1, 0]


def test_a_shorter_training_is_of_everything_that_trains(config):
    found = shortened(config.train.model_copy(update={"head_epochs": 4, "epochs": 9}))
    assert (found.head_epochs, found.epochs) == (0, 2)
