"""Old models go by count and age; entries never do."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.training.test_champion import entry, published
from training import champion
from training.config import StoreConfig
from training.retention import delete_outdated, outdated
from training.store import open_store

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def nights(*days_ago):
    """A history promoted so many days ago, one model each."""
    return [
        entry(number, promoted_at=(NOW - timedelta(days=days)).isoformat()) for number, days in enumerate(days_ago, 1)
    ]


@pytest.mark.parametrize(
    ("count", "days", "gone"),
    [
        (2, 30, [3, 2, 1]),
        (2, 60, [2, 1]),
        (4, 30, [1]),
        (5, 0, []),
        (2, 1000, []),
    ],
)
def test_a_model_goes_only_when_beyond_both(count, days, gone):
    entries = nights(200, 100, 50, 40, 0)
    assert outdated(entries, count, days, NOW) == [f"models/{number}/" for number in gone]


def test_no_history_has_nothing_outdated():
    assert outdated([], 2, 0, NOW) == []


def test_the_one_in_service_and_the_one_before_it_stay_whatever_their_age():
    """After two rollbacks, a rollback's target is older than the newest models."""
    old = nights(500, 400, 300, 200)
    back = entry(5, model="models/2/model.keras", rolled_back_to=2, promoted_at=(NOW - timedelta(days=100)).isoformat())
    assert champion.before([*old, back]).number == 1
    assert outdated([*old, back], 2, 30, NOW) == ["models/3/"]


def test_files_go_and_entries_stay(tmp_path):
    store = open_store(str(tmp_path))
    made = [published(store, number, {"model.keras": bytes([number])}) for number in range(1, 6)]
    keep = StoreConfig(champion=str(tmp_path), keep_models=2, keep_days=30)
    assert delete_outdated(store, keep, NOW) == [made[2].folder, made[1].folder, made[0].folder]
    assert [store.exists(one.model) for one in made] == [False, False, False, True, True]
    assert champion.history(store) == made
    assert delete_outdated(store, keep, NOW) == []
    assert champion.roll_back(store, "now").rolled_back_to == 4
