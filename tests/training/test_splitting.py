"""Splits of real images from night to night, through `ingest` with its ledger."""

import csv
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.conftest import SOLAR_CELLS, read_labels, small_settings
from training import manifest
from training.config import load_config
from training.errors import StoreError
from training.ledger import Ledger
from training.steps import run_step
from training.store import open_store


class Nights:
    """One data set, taken in again and again."""

    def __init__(self, cells, folder):
        self.cells, self.folder, self.count = cells, folder, 0
        self.rows = {name: (label, "") for name, label in read_labels(cells)}

    def ingest(self, **settings):
        with (self.cells / "labels.csv").open("w", newline="") as file:
            csv.writer(file).writerows(
                [("path", "label", "group"), *((name, *rest) for name, rest in self.rows.items())]
            )
        self.count += 1
        uri = str(self.folder / f"run{self.count}")
        run_step("ingest", load_config(SOLAR_CELLS, small_settings(self.cells, self.folder) | settings), uri)
        return manifest.from_parquet(open_store(uri).read("manifest.parquet")).set_index("path")

    def add(self, name, image, group=""):
        image.save(self.cells / name)
        self.rows[name] = ("intact", group)


@pytest.fixture
def nights(cells, tmp_path):
    return Nights(cells, tmp_path)


def noise(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 12), dtype=np.uint8)
    return Image.fromarray(pixels).resize((120, 120), Image.Resampling.BICUBIC)


def brighter(image):
    return image.point(lambda value: min(255, value * 1.2))


def of_split(rows, split):
    return next(name for name in rows.index if rows["split"][name] == split)


def test_no_image_moves_when_others_come_or_go(nights):
    before = nights.ingest()
    for seed in range(13):
        nights.add(f"new{seed}.png", noise(seed))
    more = nights.ingest()
    assert len(more) == 143 and (more["split"][before.index] == before["split"]).all()
    gone = list(before.index[::3])
    for name in gone:
        del nights.rows[name]
    fewer = nights.ingest()
    assert (fewer["split"] == more["split"][fewer.index]).all()


def test_a_near_duplicate_is_in_its_elders_split_also_when_the_elder_is_gone(nights):
    before = nights.ingest()
    elder = of_split(before, "test")
    with Image.open(nights.cells / elder) as image:
        for number in range(6):
            nights.add(f"zz{number}.png", brighter(image.resize((200 + 10 * number,) * 2)))
    rows = nights.ingest()
    twins = rows.loc[[f"zz{number}.png" for number in range(6)]]
    assert set(twins["split"]) == {"test"} and set(twins["near_duplicate_of"]) == {rows["sha256"][elder]}
    del nights.rows[elder]
    assert set(nights.ingest()["split"][twins.index]) == {"test"}


def test_a_near_duplicate_is_found_although_what_its_elder_looks_like_was_lost(nights):
    image = noise(7)
    nights.add("elder.png", image)
    nights.ingest()
    for lost in (nights.folder / "champion_data" / "images").rglob("signatures-*.parquet"):
        lost.unlink()
    nights.add("younger.png", brighter(image))
    rows = nights.ingest()
    assert rows["near_duplicate_of"]["younger.png"] == rows["sha256"]["elder.png"]


def test_an_image_whose_group_and_picture_disagree_is_leakage(nights):
    rows = nights.ingest()
    one, other = of_split(rows, "test"), of_split(rows, "train")
    nights.add("grouped.png", noise(1), "g")
    home = nights.ingest()["split"]["grouped.png"]
    elder = next(name for name in (one, other) if rows["split"][name] != home)
    with Image.open(nights.cells / elder) as image:
        nights.add("torn.png", brighter(image), "g")
    torn = nights.ingest().loc["torn.png"]
    assert pd.isna(torn["split"])
    assert home in torn["leakage"] and rows["split"][elder] in torn["leakage"]


def test_a_group_made_of_images_in_two_splits_is_leakage(nights):
    rows = nights.ingest()
    names = [of_split(rows, "test"), of_split(rows, "train")]
    for name in names:
        nights.rows[name] = (nights.rows[name][0], "late")
    again = nights.ingest()
    assert again["leakage"][names].str.contains("group 'late' would be in train and test").all()
    assert again["split"].drop(names).notna().all() and (again["leakage"].drop(names)).isna().all()


def test_other_shares_begin_another_ledger(nights):
    before = nights.ingest()
    after = nights.ingest(**{"split.salt": "other"})
    assert (before["split"] != after["split"]).any()
    assert (nights.ingest()["split"] == before["split"]).all()


def test_of_two_runs_that_add_at_once_one_looks_again(nights):
    nights.ingest()
    config = load_config(SOLAR_CELLS, small_settings(nights.cells, nights.folder))
    one, other = (Ledger(open_store(config.store.data), config.split) for _ in range(2))
    rows = one.read()
    other.read()
    new = rows.head(1).assign(sha256="new")
    assert one.append(new) and not other.append(new.assign(sha256="newer"))
    assert list(other.read()["sha256"])[-1] == "new"


def test_a_damaged_ledger_is_an_error_and_no_free_pass(nights):
    nights.ingest()
    (part,) = (nights.folder / "champion_data" / "splits").rglob("*.parquet")
    part.write_bytes(part.read_bytes()[:100])
    shutil.rmtree(nights.folder / "champion_data" / "images")  # that one may be lost
    with pytest.raises(StoreError, match="damaged"):
        nights.ingest()
