"""Whether a night has anything new: the same images, settings, weights and code, or not."""

import json
import shutil
from datetime import date
from importlib import metadata
from pathlib import Path

import pytest

from training.config import RunConfig, parse_config
from training.nights import accepted_before, record, records_of
from training.novelty import made_from, same_as
from training.run_folder import open_run


def changed(config: RunConfig, **settings: object) -> RunConfig:
    tree = config.model_dump(mode="json")
    for dotted, value in settings.items():
        section, _, key = dotted.partition("__")
        tree[section] = tree[section] | {key: value} if key else value
    return parse_config(tree)


@pytest.fixture
def model(night: tuple[Path, RunConfig], tmp_path: Path) -> RunConfig:
    """A model whose one night was promoted, in a place of its own."""
    folder, config = night
    here = changed(config, store__runs=str(tmp_path / "runs"))
    _night(folder / "run", here, "first")
    return here


def _night(source: Path, config: RunConfig, name: str, **known: object) -> None:
    """A copy of a finished run as one of the model's nights, made from what `config` says."""
    run = Path(config.store.runs) / config.name / name
    shutil.copytree(source, run)
    (run / "config.json").unlink()
    facts = json.loads((run / "provenance.json").read_text())
    facts["made_from"] = made_from(config, facts["data_sha256"])
    facts["steps"]["ingest"]["began"] = f"2026-01-0{len(list(run.parent.iterdir()))}T02:00:00+00:00"
    (run / "provenance.json").write_text(json.dumps(facts))
    open_run(config, str(run), first=True)
    record(config, str(run), **known)


def _tonight(night, config: RunConfig, data_sha256: str | None = None):
    _night(night[0] / "run", config, "tonight")
    run = open_run(config, f"{config.store.runs}/{config.name}/tonight")
    if data_sha256:
        run.write_json("provenance.json", {"made_from": made_from(config, data_sha256)})
    return same_as(run)


def test_the_same_again_is_nothing_new(night, model):
    assert _tonight(night, model).run == "first"


@pytest.mark.parametrize(
    "settings",
    [{"schedule": "0 3 * * *"}, {"alerts__email_to": ["ops@example.com"]}, {"data__uri": "elsewhere"}],
)
def test_nor_is_what_makes_no_other_model(night, model, settings):
    assert _tonight(night, changed(model, **settings)).run == "first"


@pytest.mark.parametrize("settings", [{"seed": 1}, {"train__epochs": 2}, {"gate__max_loss_gap": 0.2}])
def test_another_setting_is_new(night, model, settings):
    assert _tonight(night, changed(model, **settings)) is None


def test_other_images_are_new(night, model):
    assert _tonight(night, model, data_sha256="0" * 64) is None


def test_so_is_other_code(night, model, monkeypatch):
    monkeypatch.setattr("training.novelty.code_sha256", lambda: "other")
    assert _tonight(night, model) is None


def test_tensorflow_without_cuda_is_the_same_library(model, monkeypatch):
    installed, before = metadata.version, made_from(model, "0")
    other = {"tensorflow": "tensorflow-of-no-kind", "tensorflow-cpu": "tensorflow"}
    monkeypatch.setattr(metadata, "version", lambda name: installed(other.get(name, name)))
    assert made_from(model, "0") == before


def test_other_weights_are_new_whatever_their_file_is_called(model, tmp_path):
    config = changed(model, model__weights=str(tmp_path / "weights.h5"))
    (tmp_path / "weights.h5").write_bytes(b"one")
    one = made_from(config, "0")
    (tmp_path / "weights.h5").write_bytes(b"other")
    assert made_from(config, "0") != one


def test_only_the_night_accepted_last_counts(night, model):
    _night(night[0] / "run", changed(model, seed=1), "second")
    assert _tonight(night, model) is None


def test_a_failed_night_is_tried_again_and_hides_none(night, model):
    _night(night[0] / "run", changed(model, seed=1), "failed", outcome="failed", cause="batch_norm")
    assert _tonight(night, model).run == "first"
    record(model, f"{model.store.runs}/{model.name}/first", outcome="failed", cause="store")
    assert same_as(open_run(model, f"{model.store.runs}/{model.name}/tonight")) is None


def test_without_a_champion_everything_is_new(night, model, tmp_path):
    away = changed(model, store__champion=str(tmp_path / "none"))
    _night(night[0] / "run", away, "second")
    assert _tonight(night, away) is None


def test_the_snapshot_before(model):
    store = records_of(model.store.runs, model.name)
    found = json.loads(store.read("first.json"))
    for day, outcome in (("02", "accepted"), ("04", "failed"), ("03", "promoted"), ("07", "accepted")):
        night = found | {"run": day, "snapshot": f"2026-01-{day}", "outcome": outcome}
        store.write(f"{day}.json", json.dumps(night).encode())
    assert accepted_before(model, date(2026, 1, 5)).run == "03"
    assert accepted_before(model, date(2026, 1, 2)) is None
