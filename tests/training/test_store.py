import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.conftest import ROOT, SOLAR_CELLS, small_settings
from training.config import load_config
from training.errors import ConfigError, StoreError
from training.store import NotFound, TooLarge, local, open_store, read_uri, s3_client


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


def test_folders_are_the_first_parts_of_keys(store):
    for name in ("b/2", "a", "b/1/x", "c/y"):
        store.write(name, b"x")
    assert list(store.folders()) == ["b", "c"]


def test_missing_is_not_found(store):
    with pytest.raises(NotFound, match="expected a stored"):
        store.read("nothing")
    assert list(store.list("nothing/")) == []
    assert list(store.folders()) == []
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


def test_leftovers_of_killed_writers_are_swept_and_nothing_else(tmp_path):
    """The writer is killed when its temporary file is complete and before that has its name."""
    kill = "import os, signal; from training.store import local, open_store; "
    kill += "local.os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL); "
    kill += f"open_store({str(tmp_path)!r}).write('deep/file', b'content')"
    killed = subprocess.run([sys.executable, "-c", kill], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = (tmp_path / "deep").iterdir()
    assert left.name.startswith(".unfinished-")
    store = open_store(str(tmp_path))
    store.write("deep/kept", b"kept")
    with local._whole_file(tmp_path / "deep" / "other", b"being written") as writing:
        store.sweep()
        assert [path.name for path in (tmp_path / "deep").iterdir() if path != Path(writing)] == ["kept"]
        assert Path(writing).exists()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["kept"]


@pytest.mark.parametrize("uri", ["s3://key:secret@bucket/prefix", "https://user:secret@host/x"])
def test_credentials_in_a_uri_are_refused_and_not_repeated(uri, tmp_path):
    with pytest.raises(ConfigError, match="holds credentials") as caught:
        open_store(uri)
    assert "secret" not in caught.value.message
    with pytest.raises(ConfigError, match=r"store\.champion: received a URI that holds credentials") as caught:
        load_config(SOLAR_CELLS, small_settings(tmp_path, tmp_path) | {"store.champion": uri})
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("name", "value"),
    [("READ_TIMEOUT", "soon"), ("CONNECT_TIMEOUT", "0"), ("READ_TIMEOUT", "inf"), ("ADDRESSING_STYLE", "sideways")],
)
def test_settings_of_the_environment_are_held(s3, monkeypatch, name, value):
    monkeypatch.setenv(f"NIGHTSHIFT_S3_{name}", value)
    s3_client.client.cache_clear()
    with pytest.raises(ConfigError, match=f"NIGHTSHIFT_S3_{name}: received '{value}', expected"):
        open_store(s3).read("file")


def test_the_key_and_the_path_style_of_the_environment_are_used(s3, monkeypatch):
    monkeypatch.setenv("NIGHTSHIFT_S3_KMS_KEY_ID", "alias/nights")
    monkeypatch.setenv("NIGHTSHIFT_S3_ADDRESSING_STYLE", "path")
    s3_client.client.cache_clear()
    store = open_store(s3)
    store.write("small", b"x")
    store.write("large", b"x" * 2**24)
    assert store.create("entry", b"x") and store.read("large") == b"x" * 2**24
    for key in ("small", "large", "entry"):
        found = s3_client.client().head_object(Bucket="nights", Key=key)
        assert (found["ServerSideEncryption"], found["SSEKMSKeyId"]) == ("aws:kms", "alias/nights")


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
