"""A history in one file, put back elsewhere to the byte, and refused when a bit of it is wrong."""

import tarfile

import pytest

from tests.training.test_champion import MODEL, published
from training import backup, champion
from training.backup import back_up, restore
from training.errors import ConfigError, StoreError
from training.nights import all_nights, records_of
from training.store import open_store


def at(config, root):
    places = {"runs": f"{root}/runs", "champion": f"{root}/champion"}
    return config.model_copy(update={"store": config.store.model_copy(update=places)})


@pytest.fixture
def kept(small, tmp_path):
    """A model with three champions, a ledger and a record."""
    config = at(small, tmp_path / "old")
    store = open_store(config.store.champion)
    for number in (1, 2, 3):
        published(store, number, MODEL | {"model.keras": bytes([number]) * 5000})
    open_store(config.store.data).write("splits.parquet", b"which image is in which split")
    open_store(config.store.data).write("computed/pixels-x/y.rows", b"what is computed again where it is lost")
    records_of(config.store.runs, config.name).write("n.json", b'{"run": "n", "began": "2026-01-01T00:00:00+00:00"}')
    return config


def contents(uri):
    store = open_store(uri)
    return {entry.key: store.read(entry.key) for entry in store.list() if not entry.key.startswith("computed/")}


def test_everything_comes_back_to_the_byte(kept, small, tmp_path, s3):
    files = back_up(kept, tmp_path / "backup.tar")
    new = at(small, f"{s3}/new")
    assert restore(new, tmp_path / "backup.tar") == files == 11
    for old_place, new_place in ((kept.store.champion, new.store.champion), (kept.store.data, new.store.data)):
        assert contents(new_place) == contents(old_place)
    assert all_nights(new.store.runs, new.name) == all_nights(kept.store.runs, kept.name)
    entries = champion.history(open_store(new.store.champion))
    champion.verify(open_store(new.store.champion), entries[-1])
    assert champion.roll_back(open_store(new.store.champion), "now").rolled_back_to == 2


def test_any_bit_that_is_wrong_is_found_before_anything_is_written(kept, small, tmp_path):
    path, new = tmp_path / "backup.tar", at(small, tmp_path / "new")
    back_up(kept, path)
    whole = path.read_bytes()
    for place in range(0, len(whole) - 2 * tarfile.RECORDSIZE // 20, 701):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            restore(new, path)
        except StoreError as error:
            assert str(path) in error.message
            assert not (tmp_path / "new").exists()
        else:  # a bit that nobody reads: a date, an owner, padding
            assert contents(new.store.champion) == contents(kept.store.champion)
            for uri in (new.store.champion, new.store.data, records_of(new.store.runs, new.name).uri()):
                _empty(uri)
            _remove(tmp_path / "new")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_file_that_was_cut_off_is_refused(kept, small, tmp_path, share):
    path = tmp_path / "backup.tar"
    back_up(kept, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(StoreError, match="expected an archive as `backup` made it"):
        restore(at(small, tmp_path / "new"), path)
    assert not (tmp_path / "new").exists()


def test_a_history_is_never_overwritten(kept, tmp_path):
    back_up(kept, tmp_path / "backup.tar")
    before = contents(kept.store.champion)
    with pytest.raises(ConfigError, match="expected a store without a history"):
        restore(kept, tmp_path / "backup.tar")
    assert contents(kept.store.champion) == before


def test_a_damaged_champion_is_not_backed_up_as_if_it_were_whole(kept, tmp_path):
    store = open_store(kept.store.champion)
    store.write(champion.current(store).model, b"flipped")
    with pytest.raises(StoreError, match="damaged content"):
        back_up(kept, tmp_path / "backup.tar")
    assert not list(tmp_path.glob("*.tar*")) and not list(tmp_path.glob(".*tar*"))


def test_killed_while_restoring_there_is_no_champion_yet(kept, small, tmp_path, monkeypatch):
    """Entries come last and in order, so what is there is always a history."""
    back_up(kept, tmp_path / "backup.tar")
    new, seen = at(small, tmp_path / "new"), []

    def watched(items, *_):
        for item in items:
            yield item
            seen.append(champion.current(open_store(new.store.champion)))

    monkeypatch.setattr(backup, "followed", watched)
    restore(new, tmp_path / "backup.tar")
    assert [entry and entry.number for entry in seen] == [None] * 8 + [1, 2, 3]


def test_what_is_no_archive_and_what_cannot_be_written_is_one_line(kept, tmp_path):
    (tmp_path / "text.tar").write_text("no archive")
    with pytest.raises(StoreError, match="expected an archive"):
        restore(at(kept, tmp_path / "new"), tmp_path / "text.tar")
    with pytest.raises(StoreError, match="No such file or directory"):
        restore(at(kept, tmp_path / "new"), tmp_path / "nowhere.tar")
    with pytest.raises(StoreError, match="No such file or directory"):
        back_up(kept, tmp_path / "no" / "folder.tar")


def _empty(uri):
    store = open_store(uri)
    for entry in list(store.list()):
        store.delete(entry.key)


def _remove(folder):
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir()
    folder.rmdir()
