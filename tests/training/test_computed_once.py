"""Rows that are computed once: on real files in a folder and on an S3 server."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from training import computed_once
from training.computed_once import ComputedOnce
from training.rows import let_go
from training.store import LocalStore, open_store

SHAPE = (4, 3)
MOST = 2**30


def name(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def row(image: str) -> np.ndarray:
    """What stands for an image's features: numbers that follow from its name alone."""
    return np.frombuffer(bytes.fromhex(image)[:12], np.uint8).reshape(SHAPE).astype(np.float32)


class Computer:
    """Computes rows, and remembers of which images."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, images):
        for image in images:
            self.asked.append(image)
            yield row(image)


def kept(store, *, recipe=1, most_bytes=MOST):
    return ComputedOnce(store, "features", {"weights": recipe}, SHAPE, "float32", most_bytes)


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path):
    return LocalStore(tmp_path) if request.param == "folder" else open_store(request.getfixturevalue("s3") + "/kept")


def test_only_what_is_new_is_computed(store):
    first, second = Computer(), Computer()
    images = [name(number) for number in range(20)]
    kept(store).rows(images, first)
    # In another order, some twice, two of them new.
    wanted = [*reversed(images), name(20), images[3], name(21), name(20)]
    found = kept(store).rows(wanted, second)
    assert first.asked == images
    assert second.asked == [name(20), name(21)]
    np.testing.assert_array_equal(found[:], np.stack([row(image) for image in wanted]))
    np.testing.assert_array_equal(found[np.array([5, 0, 5])], np.stack([row(wanted[place]) for place in (5, 0, 5)]))
    np.testing.assert_array_equal(found.take(np.arange(4, 9))[1:3], found[5:7])
    assert (len(found), found.shape, found.dtype) == (24, (24, *SHAPE), np.float32)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the system does not say what of a file is in memory")
def test_what_lies_in_files_takes_no_memory(tmp_path):
    images = [name(number) for number in range(2000)]
    kept(LocalStore(tmp_path)).rows(images, Computer())
    found = kept(LocalStore(tmp_path)).rows(images, Computer())
    assert resident(tmp_path) == 0
    np.testing.assert_array_equal(found[700:702], [row(image) for image in images[700:702]])
    assert resident(tmp_path) == 0


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the system does not say what of a file is in memory")
def test_two_files_at_a_time_are_looked_through(tmp_path, monkeypatch):
    monkeypatch.setattr(computed_once, "_FILE_BYTES", 2**16)
    images = [name(number) for number in range(5000)]
    kept(LocalStore(tmp_path)).rows(images, Computer())
    largest = max(path.stat().st_size for path in tmp_path.rglob("*.rows"))
    seen = []

    def watched(rows):
        seen.append(resident(tmp_path))
        let_go(rows)

    monkeypatch.setattr(computed_once, "let_go", watched)
    kept(LocalStore(tmp_path)).rows(images, Computer())
    assert len(list(tmp_path.rglob("*.rows"))) > 5
    assert 0 < max(seen) <= 2 * (largest / 2**10 + 4)  # as whole pages


def resident(folder: Path) -> int:
    """KiB of the folder's mapped files that the system counts as this process's."""
    sizes, inside, mapped = [], False, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = str(folder) in line
            mapped = mapped or inside
        elif inside and line.startswith("Rss:"):
            sizes.append(int(line.split()[1]))
    assert mapped
    return sum(sizes)


def test_of_no_images_there_are_no_rows(store):
    assert kept(store).rows([], Computer()).shape == (0, *SHAPE)
    assert not list(store.list())


def test_other_weights_other_rows(store):
    images = [name(number) for number in range(3)]
    kept(store, recipe=1).rows(images, Computer())
    other = Computer()
    kept(store, recipe=2).rows(images, other)
    assert other.asked == images


@pytest.mark.parametrize("damage", ["cut off", "a bit", "empty"])
def test_a_damaged_file_is_found_and_made_anew(tmp_path, damage):
    store, images = LocalStore(tmp_path), [name(number) for number in range(8)]
    kept(store).rows(images, Computer())
    (path,) = tmp_path.rglob("*.rows")
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes({"cut off": content[:-7], "a bit": content, "empty": b""}[damage])
    again, never = Computer(), Computer()
    found = kept(store).rows(images, again)
    assert again.asked == images
    np.testing.assert_array_equal(found[:], np.stack([row(image) for image in images]))
    kept(store).rows(images, never)
    assert never.asked == []


def test_nights_do_not_leave_a_file_each(tmp_path, monkeypatch):
    monkeypatch.setattr(computed_once, "_FILE_BYTES", 112 * 10)  # ten rows
    store = LocalStore(tmp_path)
    for night in range(1, 41):
        kept(store).rows([name(number) for number in range(night)], Computer())
    files = list(tmp_path.rglob("*.rows"))
    assert len(files) <= 8  # none but the last is less than half full
    assert sum(path.stat().st_size for path in files) == 40 * 112
    last = Computer()
    kept(store).rows([name(number) for number in range(40)], last)
    assert last.asked == []


def test_an_interrupted_night_has_not_computed_in_vain(tmp_path, monkeypatch):
    monkeypatch.setattr(computed_once, "_FILE_BYTES", 112 * 10)
    images = [name(number) for number in range(35)]

    def interrupted(wanted):
        yield from map(row, wanted[:27])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept(LocalStore(tmp_path)).rows(images, interrupted)
    rest = Computer()
    kept(LocalStore(tmp_path)).rows(images, rest)
    assert rest.asked == images[20:]


def test_no_more_is_kept_than_is_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(computed_once, "_FILE_BYTES", 112 * 10)
    store, most = LocalStore(tmp_path), 112 * 50
    old = [name(number) for number in range(40)]
    new = [name(number) for number in range(100, 130)]
    kept(store, recipe=1, most_bytes=most).rows(old, Computer())
    found = kept(store, recipe=2, most_bytes=most).rows(new, Computer())
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.rows")) <= most
    # What is being used stays.
    none = Computer()
    kept(store, recipe=2, most_bytes=most).rows(new, none)
    assert none.asked == []
    # More than is allowed is computed all the same, and read from what was removed.
    many = [name(number) for number in range(200, 300)]
    found = kept(store, recipe=2, most_bytes=most).rows(many, Computer())
    np.testing.assert_array_equal(found[:], np.stack([row(image) for image in many]))
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.rows")) <= most


def test_two_writers_at_once_do_no_harm(tmp_path):
    """A second night begins, computes and ends while the first is in the middle of computing the same."""
    store, images = LocalStore(tmp_path), [name(number) for number in range(12)]
    kept(store).rows(images[:2], Computer())

    def first(wanted):
        for place, image in enumerate(wanted):
            if place == 5:
                kept(store).rows(images, Computer())
            yield row(image)

    found = kept(store).rows(images, first)
    np.testing.assert_array_equal(found[:], np.stack([row(image) for image in images]))
    after = Computer()
    np.testing.assert_array_equal(kept(store).rows(images, after)[:], found[:])
    assert after.asked == []
    assert not any(Path(path).name.startswith(".") for path in tmp_path.rglob("*"))
