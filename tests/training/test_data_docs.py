"""Data Docs: pages that need nothing but themselves, and that take what a bucket holds for text."""

import base64
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import great_expectations as gx
import pandas as pd
import pytest
from great_expectations.data_context.types.base import ProgressBarsConfig

from training.data_docs import site
from training.image_expectations import expectation_of
from training.offenders import LIMIT, Offender, add_offenders

EVIL = "<script>alert(1)</script>"
SUITE = "cells.manifest"
RULES = {
    "decodable": ("expect_images_to_be_decodable", {}),
    "tolerated": ("expect_image_width_to_be_between", {"min_value": 32, "mostly": 0.5}),
    "met": ("expect_image_height_to_be_between", {"min_value": 32}),
    "own": ("expect_column_values_to_match_regex", {"column": "path", "regex": f"^(?!{re.escape(EVIL)})$"}),
    "set": ("expect_column_distinct_values_to_be_in_set", {"column": "label", "value_set": [EVIL]}),
    "broken": ("expect_column_values_to_not_be_null", {"column": EVIL}),
    EVIL: ("expect_column_values_to_be_in_set", {"column": "label", "value_set": ["a"], "description": EVIL}),
    "drift": ("expect_mean_brightness_not_to_drift", {"column": "width", "baseline": 90, "tolerance": 5}),
    "chart": (
        "expect_column_kl_divergence_to_be_less_than",
        {"column": "label", "partition_object": {"values": ["a", EVIL], "weights": [0.5, 0.5]}, "threshold": 0.1},
    ),
    "rows": ("expect_table_row_count_to_be_between", {"min_value": 1}),
}
TABLE = pd.DataFrame(
    {
        "path": ["a.png", f"{EVIL}.png", "c.png"],
        "error": [None, f"OSError: {EVIL}", None],
        "width": [300, 20, 300],
        "height": [300, 300, 300],
        "label": ["a", EVIL, EVIL],
    }
)
OFFENDERS = (
    Offender("decodable", f"{EVIL}.png", f"OSError: {EVIL}", None),
    Offender("tolerated", "b.png", "20 pixels wide", b"PNG"),
    Offender(EVIL, "c.png", "a label", b"PNG"),
    Offender("unheard of", "d.png", "no reason", b"PNG"),
)


def write(docs: Path) -> None:
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    context.add_data_docs_site("docs", site(docs))
    images = context.data_sources.add_pandas("manifest").add_dataframe_asset("images")
    expectations = [expectation_of(kind, kwargs, {"rule": rule}) for rule, (kind, kwargs) in RULES.items()]
    definition = gx.ValidationDefinition(
        name=SUITE,
        data=images.add_batch_definition_whole_dataframe("all"),
        suite=context.suites.add(gx.ExpectationSuite(SUITE, expectations=expectations)),
    )
    checkpoint = gx.Checkpoint(
        name=SUITE,
        validation_definitions=[context.validation_definitions.add(definition)],
        actions=[gx.checkpoint.UpdateDataDocsAction(name="docs", site_names=["docs"])],
        result_format={"result_format": "SUMMARY", "unexpected_index_column_names": ["path"]},
    )
    run = gx.RunIdentifier(run_name="<b>profiling")
    context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": TABLE}, run_id=run)


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    write(folder)
    add_offenders(folder, OFFENDERS)
    return folder


@pytest.fixture(scope="module")
def validation(docs: Path) -> str:
    (page,) = (docs / "validations").rglob("*.html")
    return page.read_text(encoding="utf-8")


def tags(page: Path) -> Iterator[tuple[str, dict[str, str | None]]]:
    found: list[tuple[str, dict[str, str | None]]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            found.append((tag, dict(attributes)))

    Reader().feed(page.read_text(encoding="utf-8"))
    return iter(found)


def test_three_kinds_of_page_and_no_other_file(docs: Path) -> None:
    files = [path for path in docs.rglob("*") if path.is_file()]
    assert sorted(path.relative_to(docs).parts[0] for path in files) == ["expectations", "index.html", "validations"]


def test_pages_ask_for_nothing_and_run_nothing(docs: Path) -> None:
    for page in docs.rglob("*.html"):
        for tag, attributes in tags(page):
            assert tag not in ("script", "link", "iframe", "b")
            assert not any(name.startswith("on") for name in attributes)
            assert attributes.get("src", "data:").startswith("data:")
            assert "://" not in (attributes.get("href") or "")
        assert not re.search(r"url\(|@import", page.read_text(encoding="utf-8"))


def test_links_lead_to_pages(docs: Path) -> None:
    linked = set()
    for page in docs.rglob("*.html"):
        places = {attributes["id"] for _, attributes in tags(page) if "id" in attributes}
        for tag, attributes in tags(page):
            path, _, place = (attributes.get("href") or "").partition("#") if tag == "a" else ("", "", "")
            assert not place or place in places
            if path:
                linked.add((page.parent / path.replace("%3C", "<").replace("%3E", ">")).resolve(strict=True))
    assert linked == {page.resolve() for page in docs.rglob("*.html")}


def test_tells_results_in_words_of_images(validation: str) -> None:
    assert "Every file is an image that can be decoded to its end." in validation
    assert "1 of 3 images break it" in validation
    assert "raised an exception" in validation
    assert "None" not in validation.partition("Statistics")[0]


def test_what_a_bucket_holds_is_text(validation: str) -> None:
    assert EVIL not in validation
    assert validation.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 10


def test_shows_offenders_beneath_their_expectation(validation: str) -> None:
    assert validation.count("<figure>") == 3
    met, tolerated = validation.index("pixels high"), validation.index("pixels wide. Must hold")
    assert met < tolerated < validation.index("b.png") < validation.index("20 pixels wide</figcaption>")
    assert validation.count("cannot be decoded</span>") == 1
    assert validation.count(f"data:image/png;base64,{base64.b64encode(b'PNG').decode()}") == 2


def test_shows_no_more_than_a_strip_and_once(tmp_path: Path) -> None:
    page = tmp_path / "validations" / "page.html"
    page.parent.mkdir()
    page.write_text('<div class="offenders" data-rule="known_mode"></div>', encoding="utf-8")
    many: list[Any] = [Offender("known_mode", f"{number}.png", "CMYK", b"PNG") for number in range(LIMIT + 5)]
    add_offenders(tmp_path, many)
    add_offenders(tmp_path, many)
    assert page.read_text(encoding="utf-8").count("<figure>") == LIMIT
