"""The manifest's contract, held by the real Great Expectations."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from training.config import RunConfig, parse_config
from training.expectations import ValidationReport, check, failed_rows
from training.manifest import from_rows
from training.manifest_rules import broken, rules, with_helpers

CLASSES = ("intact", "defective")
SPLITS = ("train", "validation", "test")
Change = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.fixture(scope="module")
def config() -> RunConfig:
    tree = {
        "name": "cells",
        "data": {"uri": "data/cells", "classes": list(CLASSES)},
        "split": {"min_per_class": 3},
        "store": {"champion": "champions/cells"},
    }
    return parse_config(tree)


def good() -> pd.DataFrame:
    """Four images of each class in each split."""
    places = [(split, label, number) for split in SPLITS for label in CLASSES for number in range(4)]
    return from_rows([row(f"{split}/{label}{number}.png", label, split) for split, label, number in places])


def row(path: str, label: str | None, split: str | None, **other: object) -> dict[str, object]:
    facts = {"sha256": f"sha of {path}", "perceptual_hash": "0" * 16, "width": 300, "height": 300, "mode": "L"}
    return facts | {"path": path, "bytes": 9, "label": label, "group": None, "split": split, "error": None} | other


def put(column: str, value: object, *indices: int) -> Change:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table = table.copy()
        table.loc[list(indices), column] = value
        return table

    return change


def add(*rows: dict[str, object]) -> Change:
    return lambda table: from_rows([*table.to_dict("records"), *rows])


def unreadable(*indices: int) -> Change:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table = put("error", "OSError: truncated", *indices)(table)
        table.loc[list(indices), ["width", "height", "mode", "perceptual_hash"]] = pd.NA
        return table

    return change


FIRST = "test/defective0.png"
TWIN = row("train/twin.png", "defective", "train", sha256=f"sha of {FIRST}")
BROKEN = {
    "path": (put("path", pd.NA, 0), "manifest row 0: received no path, expected one"),
    "label": (put("label", pd.NA, 0), f"{FIRST}: received no label, expected one of intact, defective"),
    "split": (put("split", pd.NA, 0), f"{FIRST}: received no split, expected one of train, validation, test"),
    "known_label": (
        put("label", "crackd", 0),
        f"label: received 'crackd' ({FIRST}), expected one of intact, defective",
    ),
    "decodable": (
        unreadable(0, 1),
        f"{FIRST}: received an unreadable image (OSError: truncated), expected a decodable image (and 1 more)",
    ),
    "width": (put("width", 20, 0), f"{FIRST}: width: received 20, expected 32 to 8192 pixels"),
    "height": (put("height", 9000, 0), f"{FIRST}: height: received 9000, expected 32 to 8192 pixels"),
    "mode": (put("mode", "CMYK", 0), f"{FIRST}: mode: received 'CMYK', expected one of L, RGB"),
    "unique": (add(TWIN), f"{FIRST}: received the same content as train/twin.png, expected every image once"),
    "listed_twice": (
        add(row(FIRST, "defective", "test")),
        f"{FIRST}: received one image 2 times, expected every image once",
    ),
    "few": (
        lambda table: table.drop(index=[0, 1]).reset_index(drop=True),
        "split.min_per_class: received 2 images of defective in test, expected at least 3",
    ),
    "none": (
        lambda table: table[table["label"] == "intact"].reset_index(drop=True),
        "split.min_per_class: received 0 images of defective in train, expected at least 3 (and 2 more)",
    ),
    "schema": (lambda table: table.drop(columns="group"), "manifest: received no column 'group', expected it"),
    "more_columns": (
        lambda table: table.assign(extra=1),
        "manifest: received the column 'extra', expected none",
    ),
    "empty": (
        lambda table: table.iloc[:0],
        "split.min_per_class: received 0 images of intact in train, expected at least 3 (and 5 more)",
    ),
}


def test_accepts_a_good_manifest_and_leaves_it_as_it_is(config: RunConfig, tmp_path: Path) -> None:
    table = good()
    report = check(table, config, tmp_path)
    assert report.success
    assert report.problems == ()
    assert report.counts == {split: {"intact": 4, "defective": 4} for split in SPLITS}
    assert report.shares["train"].deviation == pytest.approx(1 / 3 - 0.65)
    pd.testing.assert_frame_equal(table, good())
    assert failed_rows(table, config).empty


def test_report_round_trips_and_has_no_clock(config: RunConfig, tmp_path: Path) -> None:
    table = put("width", 20, 0)(good())
    report, again = check(table, config, tmp_path / "a"), check(table, config, tmp_path / "b")
    assert report == again
    assert ValidationReport.model_validate_json(report.model_dump_json()) == report


@pytest.mark.parametrize("case", BROKEN)
def test_tells_each_broken_rule_in_one_line(case: str, config: RunConfig, tmp_path: Path) -> None:
    change, line = BROKEN[case]
    report = check(change(good()), config, tmp_path)
    assert not report.success
    assert report.problems[0] == line
    assert len(report.problems) == 1


def test_an_image_with_two_labels(config: RunConfig, tmp_path: Path) -> None:
    table = add(row(FIRST, "intact", "test"))(good())
    report = check(table, config, tmp_path)
    assert report.problems[0] == f"{FIRST}: received 2 labels (defective, intact) for one image, expected one"
    assert list(failed_rows(table, config)["path"]) == [FIRST, FIRST]


@pytest.mark.parametrize("case", sorted(set(BROKEN) - {"schema", "more_columns"}))
def test_quarantine_agrees_with_the_suite(case: str, config: RunConfig, tmp_path: Path) -> None:
    table = BROKEN[case][0](good())
    results = check(table, config, tmp_path).results
    rows = with_helpers(table, config)
    assert [result.unexpected_count for result in results] == [len(broken(rule, rows)) for rule in rules(config)]
    quarantined = failed_rows(table, config)
    assert quarantined.empty == all(result.unexpected_count == 0 for result in results)
    assert quarantined["reason"].str.contains("received").all()


def test_result_names_values_and_paths(config: RunConfig, tmp_path: Path) -> None:
    report = check(put("mode", "CMYK", 0, 1, 2, 3, 4, 5)(good()), config, tmp_path)
    (result,) = [result for result in report.results if not result.success]
    assert result.expectation == "expect_column_values_to_be_in_set"
    assert result.unexpected_count == 6
    assert result.limit == {"value_set": ["L", "RGB"]}
    assert result.observed == ["CMYK"] * 5
    assert result.examples[0] == FIRST
    assert len(result.examples) == 5


def test_data_docs_are_a_site_that_names_the_suite(config: RunConfig, tmp_path: Path) -> None:
    check(unreadable(0)(good()), config, tmp_path)
    assert "cells_manifest" in (tmp_path / "index.html").read_text(encoding="utf-8")
    (page,) = (tmp_path / "validations").rglob("*.html")
    assert "Every file is an image that can be decoded to its end." in page.read_text(encoding="utf-8")
