"""Expectations about images: how they are named, kept, told and held."""

from typing import Any

import great_expectations as gx
import pandas as pd
import pytest
from great_expectations.data_context.types.base import ProgressBarsConfig

from training.errors import ConfigError
from training.image_expectations import expectation_of

TABLE = pd.DataFrame(
    {
        "error": [None, "OSError: truncated", None, None],
        "width": [300, None, 20, 300],
        "height": [300, None, 300, 9000],
        "mode": ["L", None, "L", "CMYK"],
        "duplicate_of": [None, None, None, "a.png"],
        "labels_of_image": [1, 1, 1, 2],
        "leaks_to": [None, "test", None, None],
        "brightness": [100.0, None, 120.0, 20.0],
        "contrast": [30.0, None, 1.0, 30.0],
    }
)
# Of each, its arguments, what it says, and the rows that break it.
EACH_IMAGE: dict[str, tuple[dict[str, Any], str, list[int]]] = {
    "expect_images_to_be_decodable": ({}, "Every file is an image that can be decoded to its end.", [1]),
    "expect_image_width_to_be_between": ({"min_value": 32}, "Every image is at least 32 pixels wide.", [2]),
    "expect_image_height_to_be_between": (
        {"min_value": 32, "max_value": 8192},
        "Every image is at least 32 and at most 8192 pixels high.",
        [3],
    ),
    "expect_image_modes_to_be_in_set": (
        {"value_set": ["L", "RGB"]},
        "Every image's colour mode (Pillow's name) is one of L, RGB.",
        [3],
    ),
    "expect_images_to_be_unique": ({}, "No two files hold the same image.", [3]),
    "expect_one_label_per_image": ({}, "No image has two labels, whether listed twice or stored twice.", [3]),
    "expect_no_leakage_between_splits": ({}, "No image is in one split and its like in another.", [1]),
    "expect_brightness_to_be_between": (
        {"max_value": 120, "strict_max": True},
        "Every image's mean brightness is less than 120.",
        [2],
    ),
    "expect_contrast_to_be_between": (
        {"min_value": 2.5},
        "Every image's contrast (standard deviation of brightness) is at least 2.5.",
        [2],
    ),
}
WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "type": (
        "expect_image_to_be_decodable",
        {},
        (
            "type: received 'expect_image_to_be_decodable', expected an expectation's name, "
            "such as expect_images_to_be_decodable"
        ),
    ),
    "class": (
        "ExpectColumnMeanToBeBetween",
        {},
        (
            "type: received 'ExpectColumnMeanToBeBetween', expected an expectation's name, "
            "such as expect_column_mean_to_be_between"
        ),
    ),
    "missing": (
        "expect_image_modes_to_be_in_set",
        {},
        "expect_image_modes_to_be_in_set.value_set: received nothing, expected a value",
    ),
    "value": (
        "expect_image_width_to_be_between",
        {"min_value": 32, "mostly": 7},
        (
            "expect_image_width_to_be_between.mostly: received 7, expected a value it takes "
            "(ensure this value is less than or equal to 1.0)"
        ),
    ),
    "together": (
        "expect_image_width_to_be_between",
        {},
        (
            "expect_image_width_to_be_between: received {}, expected arguments it takes "
            "(min_value and max_value cannot both be None)"
        ),
    ),
    "baseline": (
        "expect_mean_brightness_not_to_drift",
        {"baseline": "bright", "tolerance": 5},
        (
            "expect_mean_brightness_not_to_drift.baseline: received 'bright', expected a value it takes "
            "(value is not a valid float)"
        ),
    ),
}


@pytest.fixture(scope="module")
def batch() -> Any:
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    images = context.data_sources.add_pandas("manifest").add_dataframe_asset("images")
    return images.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": TABLE})


@pytest.mark.parametrize("kind", EACH_IMAGE)
def test_says_and_finds_what_breaks_it(kind: str, batch: Any) -> None:
    kwargs, sentence, rows = EACH_IMAGE[kind]
    expectation = expectation_of(kind, kwargs)
    assert expectation.description == sentence
    result = batch.validate(expectation, result_format="SUMMARY")
    assert not result.success
    assert result.result["partial_unexpected_index_list"] == rows


@pytest.mark.parametrize("kind", EACH_IMAGE)
def test_tolerates_and_says_so(kind: str, batch: Any) -> None:
    kwargs, sentence, _ = EACH_IMAGE[kind]
    expectation = expectation_of(kind, kwargs | {"mostly": 0.5})
    assert expectation.description == f"{sentence} Must hold for at least 50 % of the images."
    assert batch.validate(expectation).success


def test_mean_brightness_drifts_from_its_baseline(batch: Any) -> None:
    near, far = (
        expectation_of("expect_mean_brightness_not_to_drift", {"baseline": middle, "tolerance": 5})
        for middle in (84, 90)
    )
    assert far.description == "The images' mean brightness is within 5 of the baseline's 90."
    assert batch.validate(near).success
    assert not batch.validate(far).success


@pytest.mark.parametrize("kind", [*EACH_IMAGE, "expect_mean_brightness_not_to_drift"])
def test_is_kept_whole(kind: str) -> None:
    kwargs = EACH_IMAGE[kind][0] if kind in EACH_IMAGE else {"baseline": 90, "tolerance": 5}
    expectation = expectation_of(kind, kwargs, {"rule": kind})
    kept = expectation.configuration.to_json_dict()
    assert kept["type"] == kind
    assert kept["kwargs"]["column"] in TABLE
    assert expectation_of(kind, kept["kwargs"], kept["meta"]) == expectation


def test_takes_great_expectations_own_and_another_description() -> None:
    core = expectation_of("expect_column_mean_to_be_between", {"column": "width", "min_value": 3})
    assert core.configuration.kwargs == {"column": "width", "min_value": 3}
    ours = expectation_of("expect_images_to_be_decodable", {"column": "fault", "description": "No broken files."})
    assert (ours.column, ours.description) == ("fault", "No broken files.")


def test_limits_may_be_parameters_of_the_suite() -> None:
    limits = {"min_value": {"$PARAMETER": "least"}, "mostly": {"$PARAMETER": "share"}}
    expectation = expectation_of("expect_image_width_to_be_between", limits)
    assert expectation.description == "Every image is at least {'$PARAMETER': 'least'} pixels wide."


@pytest.mark.parametrize("case", WRONG)
def test_wrong_ones_are_told_in_one_line(case: str) -> None:
    kind, kwargs, line = WRONG[case]
    with pytest.raises(ConfigError) as raised:
        expectation_of(kind, kwargs)
    assert raised.value.message == line


def test_an_unknown_argument_is_told_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"between\.colum: received 'width', expected no such argument but column,"):
        expectation_of("expect_column_mean_to_be_between", {"colum": "width"})
