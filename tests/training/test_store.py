import os
import threading

import pytest

from training.errors import ConfigError, StoreError
from training.store import NotFound, TooLarge, open_store, read_uri


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path):
    return open_store(str(tmp_path) if request.param == "folder" else f"{request.getfixturevalue('s3')}/a/prefix")


def test_what_is_written_is_read(store):
    store.write("deep/down/file", b"one")
    store.write("deep/down/file", b"two")
    assert store.read("deep/down/file") == b"two"
    assert read_uri(store.uri("deep/down/file")) == b"two"
    assert store.exists("deep/down/file") and not store.exists("deep/down")


def test_listing_is_in_order_and_notices_change(store):
    for name in ("b/2", "a", "b/1"):
        store.write(name, b"x")
    assert [entry.key for entry in store.list()] == ["a", "b/1", "b/2"]
    assert [entry.key for entry in store.list("b/")] == ["b/1", "b/2"]
    before = {entry.key: entry.version for entry in store.list()}
    store.write("a", b"xy")
    after = {entry.key: entry.version for entry in store.list()}
    assert before["a"] != after["a"] and before["b/1"] == after["b/1"]


def test_missing_is_not_found(store):
    with pytest.raises(NotFound, match="expected a stored"):
        store.read("nothing")
    assert list(store.list("nothing/")) == []
    store.delete("nothing")


def test_create_has_one_winner_among_racing_writers(store):
    won, start = [], threading.Barrier(8)

    def race(number):
        start.wait()
        if store.create("entry", str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.read("entry") == str(won[0]).encode()


def test_a_folder_is_never_left(tmp_path):
    for key in ("../outside", "/etc/passwd", "a/../../b"):
        with pytest.raises(StoreError, match="expected a path inside"):
            open_store(str(tmp_path)).read(key)


def test_nothing_unfinished_stays_when_writing_fails(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        open_store(str(tmp_path)).write("file", b"content")
    assert list(tmp_path.iterdir()) == []


def test_other_schemes_are_refused():
    for uri in ("gs://bucket/x", "s3://"):
        with pytest.raises(ConfigError):
            open_store(uri)


def test_missing_bucket_is_one_line(s3):
    with pytest.raises(StoreError) as caught:
        list(open_store("s3://no-such-bucket/x").list())
    assert "\n" not in caught.value.message


def test_more_than_asked_for_is_not_read(store):
    store.write("file", b"12345")
    assert store.read("file", 5) == b"12345"
    with pytest.raises(TooLarge, match="expected at most 4"):
        store.read("file", 4)


def test_what_is_no_file_of_the_folder_is_not_read(tmp_path):
    (tmp_path / "secret").write_text("secret")
    inside = tmp_path / "inside"
    (inside / "deep").mkdir(parents=True)
    os.mkfifo(inside / "pipe")
    (inside / "here").symlink_to("deep/file")
    (inside / "deep" / "file").write_text("inside")
    (inside / "away").symlink_to("../secret")
    (inside / "up").symlink_to("..")
    (inside / "round").symlink_to("round")
    store = open_store(str(inside))
    assert store.read("here") == b"inside"
    for key in ("away", "up/secret"):
        with pytest.raises(StoreError, match="expected a file inside") as caught:
            store.read(key)
        assert caught.value.cause == "outside"
    for key in ("pipe", "round", "deep", "a" * 5000):
        with pytest.raises(NotFound):
            store.read(key)
    # A link out is listed, so that it can be told why it is not read.
    assert [entry.key for entry in store.list()] == ["away", "deep/file", "here"]
