"""Old runs go by count and age; what is served, what is under way, and every record stay."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from tests.training.test_champion import entry
from training import champion, run_retention
from training.errors import StoreError
from training.nights import Night, all_nights
from training.run_retention import delete_run, outdated, outdated_runs
from training.store import open_store

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def night(name, days_ago, outcome="accepted"):
    return Night(run=name, began=(NOW - timedelta(days=days_ago)).isoformat(), outcome=outcome)


@pytest.mark.parametrize(
    ("count", "days", "gone"),
    [(2, 30, ["a", "b", "c"]), (2, 60, ["a", "b"]), (4, 30, ["a"]), (5, 0, []), (1, 0, ["a", "b", "c", "d"])],
)
def test_a_run_goes_only_when_beyond_both(count, days, gone):
    nights = [night(name, ago) for name, ago in zip("caebd", (50, 200, 0, 100, 40), strict=True)]
    assert outdated(nights, set(), count, days, NOW) == gone


def test_what_is_needed_or_under_way_stays():
    nights = [night("a", 90), night("b", 80), night("c", 6, "under_way"), night("d", 8, "under_way"), night("e", 1)]
    assert outdated(nights, {"b"}, 1, 0, NOW) == ["a", "d"]


@pytest.fixture(params=["folder", "s3"])
def config(request, small, tmp_path):
    """A model with five runs, of which the second and the fourth were promoted."""
    root = str(tmp_path) if request.param == "folder" else request.getfixturevalue("s3")
    places = {"runs": f"{root}/runs", "champion": f"{root}/champion", "keep_runs": 1, "keep_run_days": 7}
    found = small.model_copy(update={"store": small.store.model_copy(update=places)})
    for number in range(1, 6):
        store = open_store(f"{root}/runs/{found.name}/night{number}")
        began = (NOW - timedelta(days=60 - 10 * number)).isoformat()
        store.write("provenance.json", json.dumps({"steps": {"ingest": {"began": began, "seconds": 1}}}).encode())
        store.write("verdict.json", b'{"accepted": true}')
        for name in ("done/ingest.json", "a/large.file", "report.html"):
            store.write(name, b"x" * 1000)
    for number, promoted in enumerate((2, 4), 1):
        champion.append(open_store(found.store.champion), entry(number, run=f"elsewhere/{found.name}/night{promoted}"))
    return found


def folders(config):
    return list(open_store(f"{config.store.runs}/{config.name}").folders())


def test_the_champions_run_and_the_one_before_it_stay_and_records_outlive_folders(config):
    assert outdated_runs(config, NOW) == ["night1", "night3"]
    for name in outdated_runs(config, NOW):
        assert delete_run(config, name) > 3000
    assert folders(config) == ["night2", "night4", "night5"]
    assert {one.run: one.outcome for one in all_nights(config.store.runs, config.name)} == {
        "night1": "accepted",
        "night3": "accepted",
    }
    assert outdated_runs(config, NOW) == []


def test_killed_half_way_what_is_left_is_not_taken_for_done_and_goes_the_next_time(config, monkeypatch):
    def killed(items, *_):
        yield next(iter(items))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(run_retention, "followed", killed)
        with pytest.raises(KeyboardInterrupt):
            delete_run(config, "night1")
    store = open_store(f"{config.store.runs}/{config.name}/night1")
    assert not store.exists("done/ingest.json") and store.exists("report.html")
    assert outdated_runs(config, NOW) == ["night1", "night3"]
    delete_run(config, "night1")
    assert "night1" not in folders(config)


def test_a_history_that_cannot_be_read_lets_nothing_go(config):
    open_store(config.store.champion).write("history/00000002.json", b"{")
    with pytest.raises(StoreError, match="unreadable entry"):
        outdated_runs(config, NOW)


def test_another_models_runs_are_not_looked_at(config):
    open_store(f"{config.store.runs}/other/old").write("verdict.json", b"{}")
    assert "old" not in outdated_runs(config, NOW)
