"""Pixels are decoded once, from the very image that `ingest` saw."""

import hashlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from training.errors import DataRejected
from training.images import decode
from training.pixels import load_pixels
from training.preprocessing import to_pixels
from training.store import LocalStore

MOST = 2**30


@pytest.fixture
def data(tmp_path):
    """A folder of images of several sizes, and their rows of a manifest."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(12):
        path = tmp_path / "data" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (20 + number, 40, 3), dtype=np.uint8)).save(path)
        rows.append((path.name, hashlib.sha256(path.read_bytes()).hexdigest()))
    return LocalStore(tmp_path / "data"), pd.DataFrame(rows, columns=["path", "sha256"])


def load(data, tmp_path, table=None, size=16):
    store, every = data
    return load_pixels(store, every if table is None else table, size, LocalStore(tmp_path / "kept"), MOST)


def test_they_are_those_of_the_served_models_code(data, tmp_path):
    store, table = data
    expected = np.stack([to_pixels(decode(store.read(path)), 16) for path in table["path"]])
    found = load(data, tmp_path)
    assert (found.shape, found.dtype) == ((12, 16, 16, 3), np.uint8)
    np.testing.assert_array_equal(found[:], expected)
    np.testing.assert_array_equal(load(data, tmp_path, table.iloc[[3, 1, 3]])[:], expected[[3, 1, 3]])


def test_what_was_decoded_is_not_read_again(data, tmp_path):
    store, table = data
    first = load(data, tmp_path, table.iloc[:10])[:]
    for path in table["path"][:10]:
        store.delete(path)
    np.testing.assert_array_equal(load(data, tmp_path)[:10], first)


def test_another_size_is_another_picture(data, tmp_path):
    load(data, tmp_path)
    assert load(data, tmp_path, size=8).shape == (12, 8, 8, 3)


def test_an_image_that_changed_since_it_was_ingested_is_refused(data, tmp_path):
    store, table = data
    store.write(table["path"][4], store.read(table["path"][5]))
    with pytest.raises(DataRejected, match=r"4\.png: received 'other content'"):
        load(data, tmp_path)
