"""The manifest's contract, held by the real Great Expectations."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from training.config import RunConfig, parse_config
from training.data_summary import DataSummary
from training.errors import ConfigError
from training.expectations import ExpectationResult, ValidationReport, check
from training.manifest import COLUMNS, typed
from training.manifest_rules import broken, rules, with_helpers

CLASSES = ("intact", "defective")
SPLITS = ("train", "validation", "test")
Change = Callable[[pd.DataFrame], pd.DataFrame]


def settings(**more: object) -> RunConfig:
    tree = {
        "name": "cells",
        "data": {"uri": "data/cells", "classes": list(CLASSES), "max_bad_fraction": 0},
        "split": {"min_per_class": 3},
        "store": {"champion": "champions/cells"},
    }
    return parse_config(tree | more)


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return settings()


def good(images: int = 4) -> pd.DataFrame:
    """So many images of each class in each split."""
    places = [(split, label, number) for split in SPLITS for label in CLASSES for number in range(images)]
    return table([row(f"{split}/{label}{number}.png", label, split) for split, label, number in places])


def table(rows: list[dict[str, object]]) -> pd.DataFrame:
    return typed(pd.DataFrame(rows, columns=list(COLUMNS))).sort_values(["path", "label"], ignore_index=True)


def row(path: str, label: str | None, split: str | None, **other: object) -> dict[str, object]:
    facts = {"sha256": f"sha of {path}", "perceptual_hash": "0" * 16, "width": 300, "height": 300, "mode": "L"}
    seen = {"brightness": 0.5, "contrast": 0.1, "bytes": 9}
    return facts | seen | {"path": path, "label": label, "split": split} | other


def put(column: str, value: object, *indices: int) -> Change:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table = table.copy()
        table.loc[list(indices), column] = value
        return table

    return change


def add(*rows: dict[str, object]) -> Change:
    return lambda rows_before: table([*rows_before.to_dict("records"), *rows])


def unreadable(*indices: int) -> Change:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table = put("error", "OSError: truncated", *indices)(table)
        table.loc[list(indices), ["width", "height", "mode", "perceptual_hash"]] = pd.NA
        return table

    return change


FIRST, SECOND = "test/defective0.png", "test/defective1.png"
TWIN = row("train/twin.png", "defective", "train", sha256=f"sha of {FIRST}")
# Name -> the change, the rule that each bad row breaks first, and the first line told.
BROKEN_ROWS = {
    "path": (put("path", pd.NA, 0), "path_present", "manifest row 0: received no path, expected one"),
    "label": (
        put("label", pd.NA, 0),
        "label_present",
        f"{FIRST}: received no label, expected one of intact, defective",
    ),
    "split": (
        put("split", pd.NA, 0),
        "leakage",
        f"{FIRST}: received leakage (no split), expected every image in one split",
    ),
    "known_label": (
        put("label", "crackd", 0),
        "known_label",
        f"label: received 'crackd' ({FIRST}), expected one of intact, defective",
    ),
    "decodable": (
        unreadable(0, 1),
        "decodable",
        f"{FIRST}: received an unreadable image (OSError: truncated), expected a decodable image (and 1 more)",
    ),
    "width": (put("width", 20, 0), "width_in_bounds", f"{FIRST}: width: received 20, expected 32 to 8192 pixels"),
    "height": (
        put("height", 9000, 0),
        "height_in_bounds",
        f"{FIRST}: height: received 9000, expected 32 to 8192 pixels",
    ),
    "mode": (
        put("mode", "CMYK", 0),
        "known_mode",
        f"{FIRST}: mode: received 'CMYK', expected one of 1, L, LA, P, PA, RGB, RGBA",
    ),
    "unique": (
        add(TWIN),
        "unique_content",
        f"train/twin.png: received the same content as {FIRST}, expected every image once",
    ),
    "listed_twice": (
        add(row(FIRST, "defective", "test")),
        "unique_content",
        f"{FIRST}: received a second time, expected every image once",
    ),
    "leakage": (
        put("leakage", "group 'g' would be in train and test", 0),
        "leakage",
        f"{FIRST}: received leakage (group 'g' would be in train and test), expected every image in one split",
    ),
    "group": (
        put("group", "g", 0, 12),
        "group_in_one_split",
        f"{FIRST}: received group 'g' in 2 splits, expected it in one (and 1 more)",
    ),
}
BROKEN_SETS = {
    "few": (
        lambda rows: rows.drop(index=[0, 1]).reset_index(drop=True),
        "split.min_per_class: received 2 images of defective in test, expected at least 3",
    ),
    "none": (
        lambda rows: rows[rows["label"] == "intact"].reset_index(drop=True),
        "split.min_per_class: received 0 images of defective in train, expected at least 3 (and 2 more)",
    ),
    "schema": (lambda rows: rows.drop(columns="group"), "manifest: received no column 'group', expected it"),
    "more_columns": (
        lambda rows: rows.assign(extra=1),
        "manifest: received the column 'extra', expected none",
    ),
    "empty": (
        lambda rows: rows.iloc[:0],
        "split.min_per_class: received 0 images of intact in train, expected at least 3 (and 5 more)",
    ),
}


def result_of(report: ValidationReport, rule: str) -> ExpectationResult:
    (result,) = [result for result in report.results if result.rule == rule]
    return result


def test_accepts_a_good_manifest_and_leaves_it_as_it_is(config: RunConfig, tmp_path: Path) -> None:
    rows = good()
    checked = check(rows, config, tmp_path)
    report = checked.report
    assert report.success and report.problems == () and report.accepted == report.images == 24
    assert report.counts == {split: {"intact": 4, "defective": 4} for split in SPLITS}
    assert report.shares["train"].deviation == pytest.approx(1 / 3 - 0.65)
    assert report.summary is not None and report.summary.shares == {"intact": 0.5, "defective": 0.5}
    pd.testing.assert_frame_equal(rows, good())
    assert checked.failed.empty


def test_report_round_trips_and_has_no_clock(config: RunConfig, tmp_path: Path) -> None:
    rows = put("width", 20, 0)(good())
    report, again = (check(rows, config, tmp_path / name).report for name in "ab")
    assert report == again
    assert ValidationReport.model_validate_json(report.model_dump_json()) == report


@pytest.mark.parametrize("case", BROKEN_ROWS)
def test_tells_each_broken_row_in_one_line(case: str, config: RunConfig, tmp_path: Path) -> None:
    """By a rule of its own: Great Expectations finds the rows that the rule's own mask marks."""
    change, rule, line = BROKEN_ROWS[case]
    rows = change(good(6))
    checked = check(rows, config, tmp_path)
    assert not checked.report.success and checked.report.problems[0] == line
    assert "data.max_bad_fraction" in checked.report.problems[-1]
    assert set(checked.failed["rule"]) == {rule} and checked.failed["reason"].str.contains("received").all()
    seen = with_helpers(rows)
    counts = {each.name: len(broken(each, seen)) for each in rules(config)}
    assert {name: result_of(checked.report, name).unexpected_count for name in counts} == counts


@pytest.mark.parametrize("case", BROKEN_SETS)
def test_tells_each_broken_set_in_one_line(case: str, config: RunConfig, tmp_path: Path) -> None:
    change, line = BROKEN_SETS[case]
    checked = check(change(good()), config, tmp_path)
    assert not checked.report.success and checked.report.problems == (line,)
    assert checked.failed.empty


def test_an_image_with_two_labels_has_none_that_is_right(config: RunConfig, tmp_path: Path) -> None:
    checked = check(add(row(FIRST, "intact", "test"))(good()), config, tmp_path)
    line = f"{FIRST}: received 2 labels (defective, intact) for one image, expected one"
    assert checked.report.problems[0] == line
    assert list(checked.failed["rule"]) == ["one_label_an_image"] * 2


def test_a_tolerated_share_of_bad_rows_is_taken_out(tmp_path: Path) -> None:
    """At the limit the night goes on with the rest, one row beyond it ends; what is counted is what goes on."""
    data = {"uri": "data/cells", "classes": list(CLASSES), "max_bad_fraction": 0.05}
    bad = put("width", 20, 0, 1)(good(7))
    checked = check(bad, settings(data=data), tmp_path / "at")
    assert checked.report.success and checked.report.accepted == 40 and list(checked.failed.index) == [0, 1]
    assert checked.report.counts["test"] == {"intact": 7, "defective": 5}
    assert checked.report.quarantined == {"width_in_bounds": 2}
    beyond = check(put("mode", "CMYK", 2)(bad), settings(data=data), tmp_path / "beyond").report
    assert beyond.problems == (
        f"{FIRST}: width: received 20, expected 32 to 8192 pixels (and 1 more)",
        "test/defective2.png: mode: received 'CMYK', expected one of 1, L, LA, P, PA, RGB, RGBA",
        "data.max_bad_fraction: received 7.14% bad rows, expected at most 5.00%",
    )


def test_expectations_of_ones_own(tmp_path: Path) -> None:
    """About rows: these go into quarantine; about the whole, or with `mostly`: it is met or not."""
    own = [
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "bytes", "min_value": 5}},
        {"type": "expect_contrast_to_be_between", "kwargs": {"min_value": 0.05, "mostly": 0.9}},
        {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "brightness", "max_value": 0.4}},
    ]
    data = {"uri": "data/cells", "classes": list(CLASSES), "max_bad_fraction": 0.05}
    rows = put("contrast", 0.01, 1, 2)(put("bytes", 4, 0)(good()))
    checked = check(rows, settings(expectations=own, data=data), tmp_path)
    assert checked.failed["rule"].to_dict() == {0: "expectations.0"}
    assert checked.failed["reason"][0] == (
        f"{FIRST}: bytes: received 4, expected expect_column_values_to_be_between (min_value: 5, mostly: 0.95)"
    )
    assert result_of(checked.report, "expectations.1").success
    told = "expectations.2: received 0.5, expected expect_column_mean_to_be_between (max_value: 0.4)"
    assert checked.report.problems == (told,)


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ({"type": "expect_nothing"}, "expectations.0.type: received 'expect_nothing', expected"),
        (
            {"type": "expect_column_mean_to_be_between", "kwargs": {"colum": "width"}},
            "expectations.0.expect_column_mean_to_be_between.colum: received 'width', expected no such argument",
        ),
        (
            {"type": "expect_column_quantile_values_to_be_between", "kwargs": {}},
            "expectations.0.type: received 'expect_column_quantile_values_to_be_between', expected another",
        ),
    ],
)
def test_a_wrong_expectation_is_an_error_of_the_config(own: dict[str, object], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        check(good(), settings(expectations=[own]), tmp_path)
    assert caught.value.message.startswith(told) and "\n" not in caught.value.message


def test_an_expectation_of_a_column_that_does_not_exist(tmp_path: Path) -> None:
    own = [{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "weight"}}]
    report = check(good(), settings(expectations=own), tmp_path).report
    assert not report.success and report.problems[0].startswith("expectations.0.kwargs: received {'column': 'weight'")


def drawn(images: int, share: float, brightness: float, seed: int) -> pd.DataFrame:
    """A night's manifest: so many images, this share of them defective, brightness around a mean with sigma 0.1."""
    random = np.random.default_rng(seed)
    labels, splits = random.choice(CLASSES[::-1], images, p=(share, 1 - share)), random.choice(SPLITS, images)
    levels = random.normal(brightness, 0.1, images)
    pairs = zip(labels, splits, levels, strict=True)
    return table([row(f"{i}.png", label, split, brightness=level) for i, (label, split, level) in enumerate(pairs)])


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory) -> DataSummary | None:
    return check(drawn(600, 0.3, 0.5, 99), settings(), tmp_path_factory.mktemp("accepted")).report.summary


@pytest.mark.parametrize(
    ("night", "told"),
    [
        (drawn(600, 0.45, 0.5, 1), "drift.max_label_share: received a total variation distance of 0."),
        (drawn(600, 0.3, 0.6, 2), "drift.max_brightness: received a standardized mean difference of "),
        (
            drawn(600, 0.3, 0.5, 3).assign(width=pd.array([600] * 600, "Int64")),
            "drift.max_size: received a standardized mean difference of 6.93, expected at most 0.5",
        ),
    ],
    ids=["label share by 15 points", "brightness by a sigma", "twice as wide"],
)
def test_drift_is_told_by_name(accepted: DataSummary, night: pd.DataFrame, told: str, tmp_path: Path) -> None:
    (problem,) = check(night, settings(), tmp_path, accepted).report.problems
    assert problem.startswith(told)


def test_healthy_nights_do_not_drift(accepted: DataSummary, tmp_path: Path) -> None:
    for seed in range(10):
        assert check(drawn(600, 0.3, 0.5, seed), settings(), tmp_path / str(seed), accepted).report.success


def test_result_names_values_and_paths(config: RunConfig, tmp_path: Path) -> None:
    report = check(put("mode", "CMYK", 0, 1, 2, 3, 4, 5)(good(6)), config, tmp_path).report
    result = result_of(report, "known_mode")
    assert result.expectation == "expect_image_modes_to_be_in_set" and result.column == "mode"
    assert (result.success, result.unexpected_count) == (False, 6)
    assert result.observed == ["CMYK"] * 5
    assert result.examples[0] == FIRST and len(result.examples) == 5


def test_data_docs_are_a_site_that_names_the_suites(config: RunConfig, tmp_path: Path) -> None:
    check(unreadable(0)(good()), config, tmp_path)
    index = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "cells_images" in index and "cells_data_set" in index
    pages = [path.read_text(encoding="utf-8") for path in (tmp_path / "validations").rglob("*.html")]
    assert any("Every file is an image that can be decoded to its end." in page for page in pages)
