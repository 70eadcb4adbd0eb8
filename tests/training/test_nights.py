"""Records of nights: what the run's documents say, kept when the run is gone."""

import json
import shutil
from pathlib import Path

import pytest

from training.config import RunConfig
from training.nights import all_nights, night_of, nights_without_record, record, records_of
from training.steps import ingest, run_step


def test_a_promoted_night(night: tuple[Path, RunConfig], tmp_path: Path):
    folder, _ = night
    evaluation = json.loads((folder / "run" / "evaluation.json").read_text())
    found = night_of(str(folder / "run"))
    assert (found.outcome, found.exit_code, found.champion, found.run) == ("promoted", 0, 1, "run")
    assert abs(found.losses["served"] - evaluation["losses"]["served"]) < 1e-5
    assert abs(found.limit - found.losses["fit"] - 50) < 1e-4
    assert found.images == json.loads((folder / "run" / "validation.json").read_text())["accepted"]


def test_records_outlive_runs_and_tries_leave_none(night: tuple[Path, RunConfig], tmp_path: Path):
    folder, shipped = night
    config = shipped.model_copy(update={"store": shipped.store.model_copy(update={"runs": str(tmp_path / "runs")})})
    for name in ("b", "a"):
        shutil.copytree(folder / "run", tmp_path / "runs" / config.name / name)
        record(config, f"{config.store.runs}/{config.name}/{name}")
    record(config, str(folder / "run"))
    shutil.rmtree(tmp_path / "runs" / config.name)
    assert [one.run for one in all_nights(config.store.runs, config.name)] == ["a", "b"]


def test_a_failed_night_tells_its_cause_and_a_damaged_record_is_left_out(small: RunConfig, tmp_path: Path):
    run = Path(small.store.runs) / small.name / "x"
    run.mkdir(parents=True)
    (run / "failure.json").write_text(
        json.dumps({"step": "validate", "exit_code": 3, "cause": "drift", "message": "m"})
    )
    record(small, str(run))
    Path(records_of(small.store.runs, small.name).uri("y.json")).write_text("{")
    (found,) = all_nights(small.store.runs, small.name)
    assert (found.outcome, found.step, found.cause, found.exit_code) == ("failed", "validate", "drift", 3)
    record(small, str(run), outcome="skipped", cause=None)
    assert [one.outcome for one in all_nights(small.store.runs, small.name)] == ["skipped"]


def test_folders_without_a_record_are_read_themselves(night: tuple[Path, RunConfig], tmp_path: Path):
    below = tmp_path / "runs" / "solar_cells"
    shutil.copytree(night[0] / "run", below / "old")
    for name in ("known", "begun", "damaged"):
        (below / name).mkdir()
    (below / "damaged" / "evaluation.json").write_text('{"losses": 1}')
    names = ["old", "known", "begun", "damaged"]
    found = nights_without_record(str(tmp_path / "runs"), "solar_cells", names, {"known"})
    assert [(one.run, one.outcome) for one in found] == [("old", "promoted"), ("begun", "under_way")]


def test_a_step_that_begins_again_has_not_failed_so_that_a_kill_is_not_taken_for_that(small, tmp_path, monkeypatch):
    found = []
    for _ in range(2):
        monkeypatch.setattr(ingest, "work", lambda run: found.append(run.store.exists("failure.json")) or 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_step("ingest", small, str(tmp_path / "run"))
        assert (tmp_path / "run" / "failure.json").is_file()
    assert found == [False, False]
