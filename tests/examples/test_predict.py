"""The example in the README, run as it is shown there."""

import hashlib
import runpy
import sys

import keras
import numpy as np
import pytest

from training import champion, network
from training.champion import Champion
from training.errors import StoreError
from training.images import decode
from training.sampling import Prior
from training.serving import serving_model
from training.store import open_store


def served(classes):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    units, activation = (1, "sigmoid") if len(classes) == 2 else (len(classes), "softmax")
    classifier = keras.Model(inputs, keras.layers.Dense(units, activation=activation)(x))
    return serving_model(classifier, 8, Prior(shift=(0.0,) * len(classes), method="analytic"))


def promote(uri, classes):
    """A store with one champion, and its model."""
    store, model = open_store(uri), served(classes)
    content = network.to_bytes(model)
    store.write("models/a/model.keras", content)
    facts = {
        "model": "models/a/model.keras",
        "sha256": hashlib.sha256(content).hexdigest(),
        "run": "runs/a",
        "evaluation_sha256": "0",
    }
    figures = {"threshold": 0.5, "test_loss": 0.1, "test_roc_auc": 0.9, "promoted_at": "2026-01-01T00:00:00+00:00"}
    assert champion.append(store, Champion(number=1, classes=classes, **facts, **figures))
    return model


@pytest.fixture
def predict(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["predict", *map(str, arguments)])
        runpy.run_module("examples.predict", run_name="__main__")
        return [line.split() for line in capsys.readouterr().out.splitlines()]

    return run


def cells(folder, count=2):
    return sorted((folder / "images").iterdir())[:count]


def test_it_prints_the_probability_of_the_positive_class(predict, few_cells, tmp_path):
    model, paths = promote(str(tmp_path), ("intact", "defective")), cells(few_cells)
    for path, (name, label, share) in zip(paths, predict(tmp_path, *paths), strict=True):
        expected = float(model(decode(path.read_bytes())[None])[0, 0])
        assert (name, label) == (str(path), "defective") and float(share) == pytest.approx(expected, abs=6e-4)


def test_of_several_classes_from_a_bucket_it_prints_each(predict, few_cells, s3):
    model, paths = promote(f"{s3}/champion", ("a", "b", "c")), cells(few_cells, 1)
    (line,) = predict(f"{s3}/champion", *paths)
    shares = model(decode(paths[0].read_bytes())[None])[0].numpy()
    assert line[1::2] == ["a", "b", "c"]
    np.testing.assert_allclose(np.array(line[2::2], float), shares, atol=6e-4)


def test_a_damaged_model_is_never_loaded(predict, few_cells, tmp_path):
    promote(str(tmp_path), ("intact", "defective"))
    path = tmp_path / "models" / "a" / "model.keras"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged content"):
        predict(tmp_path, *cells(few_cells))


def test_a_store_without_a_champion_is_told_in_one_line(predict, tmp_path):
    with pytest.raises(SystemExit, match="expected a store with a champion"):
        predict(tmp_path)
