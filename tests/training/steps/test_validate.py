"""Nights of real cells after an accepted one: drift is told by name, ordinary nights pass, offenders are shown."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.conftest import SOLAR_CELLS, read_labels, small_settings, write_labels
from training import champion
from training.champion import Champion
from training.config import load_config
from training.data_summary import DataSummary
from training.errors import ConfigError, DataRejected
from training.steps import run_step
from training.store import open_store


@pytest.fixture(scope="module")
def nights(all_cells, tmp_path_factory):
    """Validates some of the cells, after a night with all of them was accepted."""
    folder = tmp_path_factory.mktemp("nights")
    cells = shutil.copytree(all_cells, folder / "cells")
    rows, count = read_labels(cells), iter(range(100))

    def night(chosen, **settings):
        write_labels(cells, chosen)
        config = load_config(SOLAR_CELLS, small_settings(cells, folder) | settings)
        uri = str(folder / f"run{next(count)}")
        for step in ("ingest", "validate"):
            run_step(step, config, uri)
        return json.loads(open_store(uri).read("validation.json"))

    night.rows, night.cells, night.folder = rows, cells, folder
    accepted = night(rows)
    assert accepted["drift"] == {}
    champion.append(open_store(f"{folder}/champion"), entry(accepted["summary"]))
    return night


def entry(summary):
    facts = {"model": "models/x/model.keras", "sha256": "", "run": "", "evaluation_sha256": "", "promoted_at": ""}
    measured = {"classes": ("intact", "defective"), "threshold": 0.5, "test_loss": 0.4, "test_roc_auc": 0.9}
    return Champion(number=1, data=DataSummary.model_validate(summary), **facts, **measured)


def test_ten_ordinary_nights_pass(nights):
    """Each with four fifths of the cells."""
    for seed in range(10):
        chosen = np.random.default_rng(seed).permutation(len(nights.rows))[: len(nights.rows) * 4 // 5]
        report = nights([nights.rows[place] for place in chosen])
        assert report["success"] and report["drift"].keys() == {"label_share", "brightness", "size"}


def test_label_shares_15_points_off_end_the_night(nights):
    defective = [row for row in nights.rows if row[1] == "defective"]
    intact = [row for row in nights.rows if row[1] == "intact"]
    share = len(defective) / len(nights.rows) + 0.15
    chosen = defective + intact[: round(len(defective) * (1 - share) / share)]
    with pytest.raises(
        DataRejected, match=r"drift.max_label_share: received a total variation distance of 0.15"
    ) as told:
        nights(chosen)
    assert told.value.cause == "label_share_drift"


def test_a_brighter_camera_ends_the_night_unless_any_drift_is_accepted(nights):
    """By one standard deviation of the cells' mean brightness."""
    random = np.random.default_rng(0)
    chosen = [nights.rows[place] for place in random.permutation(len(nights.rows))[:400]]
    before = nights(chosen)["summary"]["brightness"]
    for name, _ in chosen:
        with Image.open(nights.cells / name) as image:
            brighter = image.point(lambda grey: min(255, grey + round(255 * before["sd"])))
        brighter.save(nights.cells / name)
    with pytest.raises(DataRejected, match=r"drift.max_brightness: received a standardized mean difference") as told:
        nights(chosen)
    assert told.value.cause == "brightness_drift"
    report = nights(chosen, **{"drift.max_brightness": None})
    assert report["success"] and report["summary"]["brightness"]["mean"] > before["mean"] + 0.8 * before["sd"]


def test_offenders_are_shown_in_data_docs(cells, tmp_path):
    """The picture of one with a wrong label, a tile for one that cannot be decoded, both by name."""
    (broken, _), (wrong, _), *others = read_labels(cells)
    (cells / broken).write_text("this is no image")
    write_labels(cells, [[broken, "intact"], [wrong, "<b>crackd</b>"], *others])
    config = load_config(SOLAR_CELLS, small_settings(cells, tmp_path) | {"data.max_bad_fraction": 0.1})
    for step in ("ingest", "validate"):
        run_step(step, config, str(tmp_path / "run"))
    docs = tmp_path / "run" / "data_docs"
    assert (docs / "index.html").exists()
    (page,) = (docs / "validations").rglob("*_images-rows.html")
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") == 1 and "cannot be decoded" in text
    assert broken in text and wrong in text and "<b>crackd</b>" not in text


def test_a_wrong_expectation_is_told_before_anything_is_written(cells, tmp_path):
    config = load_config(
        SOLAR_CELLS, small_settings(cells, tmp_path) | {"expectations": [{"type": "expect_images_to_be_nice"}]}
    )
    run_step("ingest", config, str(tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"expectations.0.type: received 'expect_images_to_be_nice'"):
        run_step("validate", config, str(tmp_path / "run"))
    assert not (tmp_path / "run" / "validation.json").exists()
