"""The champion's history: numbered, append-only, checked on reading, and one winner a round."""

import json
import threading

import pytest

from tests.training.racing import FILES, WINNER_ONLY, killed_before_the_entry, race
from training import champion
from training.champion import Champion
from training.errors import ConfigError, StoreError, Superseded
from training.store import open_store

MODEL = {"model.keras": b"network and weights", "model_card.md": b"# A model"}


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


def published(store, number, files=MODEL):
    """An entry whose files are stored."""
    digests = champion.digests(files)
    new = entry(number, model=champion.stored_under(files), sha256=digests["model.keras"], files=digests)
    champion.publish(store, new, files)
    return new


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


def test_an_old_entry_still_loads(store):
    """As entries were written before they said who, from which code, and which files."""
    old = {key: value for key, value in entry(1).tree().items() if value is not None and key != "files"}
    store.write("history/00000001.json", json.dumps(old).encode())
    assert champion.current(store) == entry(1) and champion.current(store).files == {}


def test_what_was_published_is_there_and_whole(store):
    new = published(store, 1)
    assert champion.current(store) == new and champion.read_model(store, new) == MODEL["model.keras"]
    champion.verify(store, new)
    assert store.read(new.folder + "model_card.md") == MODEL["model_card.md"]


def test_a_number_taken_is_superseded_and_the_winner_stays(store):
    first = published(store, 1)
    with pytest.raises(Superseded, match="champion 1") as lost:
        published(store, 1, {"model.keras": b"another"})
    assert (lost.value.exit_code, lost.value.code, lost.value.cause) == (1, "superseded", "superseded")
    assert champion.history(store) == [first]
    champion.verify(store, first)


def test_other_files_have_another_name():
    assert champion.stored_under(MODEL) == champion.stored_under(dict(reversed(MODEL.items())))
    names = {champion.stored_under(MODEL | change) for change in ({}, {"model_card.md": b""}, {"x": b"# A model"})}
    assert len(names) == 3


def test_rolling_back_appends_the_earlier_one(store):
    for number in (1, 2, 3):
        published(store, number, {"model.keras": bytes([number])})
    back = champion.roll_back(store, "now", "me@here")
    assert (back.number, back.rolled_back_to, back.promoted_by) == (4, 2, "me@here")
    assert champion.read_model(store, back) == b"\x02"
    assert champion.roll_back(store, "now").rolled_back_to == 1
    with pytest.raises(ConfigError, match="an earlier entry"):
        champion.roll_back(store, "now")
    assert [old.number for old in champion.history(store)] == [1, 2, 3, 4, 5]


def test_no_rollback_leads_to_what_was_gone_back_from(store):
    for number in (1, 2):
        published(store, number, {"model.keras": bytes([number])})
    champion.roll_back(store, "now")
    published(store, 4, {"model.keras": b"new"})
    assert champion.roll_back(store, "now").rolled_back_to == 1


def test_nothing_to_go_back_to(store):
    with pytest.raises(ConfigError, match="an earlier entry"):
        champion.roll_back(store, "now")


@pytest.mark.parametrize("name", MODEL)
def test_no_rollback_to_a_model_that_is_gone_or_damaged(store, name):
    first = published(store, 1)
    published(store, 2, {"model.keras": b"another"})
    store.write(first.folder + name, b"damage")
    with pytest.raises(StoreError, match="damaged content"):
        champion.roll_back(store, "now")
    store.delete(first.folder + name)
    with pytest.raises(StoreError, match=name) as gone:
        champion.roll_back(store, "now")
    assert "\n" not in gone.value.message and champion.current(store).number == 2


def test_every_flipped_bit_of_a_model_is_noticed(store):
    good = published(store, 1)
    content = MODEL["model.keras"]
    for bit in range(8 * len(content)):
        store.write(good.model, _flipped(content, bit))
        with pytest.raises(StoreError, match="damaged content"):
            champion.read_model(store, good)


@pytest.mark.parametrize("every", [11, pytest.param(1, marks=pytest.mark.soak)])  # 11 meets each place in a byte
def test_every_flipped_bit_of_an_entry_is_noticed(store, every):
    """Many leave good JSON with another loss, number or model; none is taken for the champion."""
    good, key = published(store, 1), "history/00000001.json"
    content = store.read(key)
    path = store.root / key
    for bit in range(0, 8 * len(content), every):
        path.write_bytes(_flipped(content, bit))
        try:
            assert champion.current(store) == good, bit  # a blank between two tokens, say
        except StoreError as error:
            assert key in error.message
    with pytest.raises(StoreError, match="damaged entry"):
        path.write_bytes(content.replace(b'"test_loss": 0.4', b'"test_loss": 0.5'))
        champion.current(store)


def _flipped(content, bit):
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("content", [b"{", b"{}", b"[]", b"3", b"", b"\xff"])
def test_an_unreadable_entry_is_an_error_not_a_free_pass(store, content):
    store.write("history/00000001.json", content)
    with pytest.raises(StoreError, match="unreadable entry"):
        champion.current(store)


def test_a_missing_entry_and_a_stray_file_are_errors(store):
    for number in (1, 2, 3):
        published(store, number)
    store.delete("history/00000002.json")
    with pytest.raises(StoreError, match=r"00000002\.json"):
        champion.current(store)
    store.write("history/notes.txt", b"")
    with pytest.raises(StoreError, match=r"notes\.txt"):
        champion.current(store)


def test_an_entry_under_another_number_is_damage(store):
    published(store, 1)
    store.write("history/00000002.json", store.read("history/00000001.json"))
    with pytest.raises(StoreError, match="entry 2"):
        champion.current(store)


def test_a_promotion_killed_before_its_entry_changes_nothing_and_ends_right_the_next_time(store, tmp_path):
    first = published(store, 1)
    assert killed_before_the_entry(str(tmp_path), 2) == -9
    assert champion.history(store) == [first] and not list(tmp_path.rglob(".unfinished-*"))
    second = published(store, 2, FILES)
    assert store.exists(second.model) and champion.history(store) == [first, second]
    assert len(list(store.list("models/"))) == len(MODEL) + len(FILES)
    champion.verify(store, second)


@pytest.mark.parametrize("place", ["here", "s3"])
@pytest.mark.parametrize(
    ("processes", "rounds"), [(8, 2), pytest.param(40, 10, marks=pytest.mark.soak)], ids=["sample", "forty"]
)
def test_of_racing_processes_one_wins_each_round(place, processes, rounds, request, tmp_path):
    uri = str(tmp_path / "champion") if place == "here" else f"{request.getfixturevalue('s3')}/champion"
    results = race(uri, processes, rounds)
    assert [sorted(found) for found in results] == [[*WINNER_ONLY * (processes - 1), "won"]] * rounds
    store = open_store(uri)
    entries = champion.history(store)
    assert [found.number for found in entries] == list(range(1, rounds + 1))
    assert len({found.run for found in entries}) == rounds
    for found in entries:
        champion.verify(store, found)
