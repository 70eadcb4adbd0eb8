import threading

import pytest

from training import champion
from training.champion import Champion
from training.errors import ConfigError, StoreError
from training.store import open_store


def entry(number, **changes):
    facts = {
        "number": number,
        "model": f"models/{number}/model.keras",
        "sha256": "0" * 64,
        "run": f"runs/{number}",
        "evaluation_sha256": "1" * 64,
        "classes": ("a", "b"),
        "threshold": 0.5,
        "test_loss": 0.4,
        "test_roc_auc": 0.9,
        "promoted_at": "2026-01-01T00:00:00+00:00",
    }
    return Champion(**facts | changes)


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path))


def test_the_newest_entry_is_in_service(store):
    assert champion.current(store) is None
    for number in (1, 2):
        assert champion.append(store, entry(number))
    assert champion.current(store) == entry(2)
    assert champion.history(store) == [entry(1), entry(2)]


def test_a_number_is_given_once(store):
    won = []
    threads = [
        threading.Thread(target=lambda run=run: champion.append(store, entry(1, run=run)) and won.append(run))
        for run in map(str, range(8))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [champion.current(store).run] == won


def test_rolling_back_appends_the_earlier_one(store):
    for number in (1, 2, 3):
        champion.append(store, entry(number))
    back = champion.roll_back(store, "now")
    assert (back.number, back.rolled_back_to, back.model) == (4, 2, "models/2/model.keras")
    assert champion.roll_back(store, "now").rolled_back_to == 1
    with pytest.raises(ConfigError, match="an earlier entry"):
        champion.roll_back(store, "now")
    assert [old.number for old in champion.history(store)] == [1, 2, 3, 4, 5]


def test_nothing_to_go_back_to(store):
    with pytest.raises(ConfigError, match="at least two entries"):
        champion.roll_back(store, "now")


def test_damage_is_named_and_never_loaded(store):
    import hashlib

    store.write("models/1/model.keras", b"model")
    good = entry(1, sha256=hashlib.sha256(b"model").hexdigest())
    assert champion.read_model(store, good) == b"model"
    store.write("models/1/model.keras", b"mOdel")
    with pytest.raises(StoreError, match="damaged content"):
        champion.read_model(store, good)


@pytest.mark.parametrize("content", [b"{", b"{}", b"[]"])
def test_an_unreadable_entry_is_an_error_not_a_free_pass(store, content):
    store.write("history/00000001.json", content)
    with pytest.raises(StoreError, match="unreadable entry"):
        champion.current(store)
