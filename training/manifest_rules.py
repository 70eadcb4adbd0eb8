"""What every row of a manifest must fulfil, and how to say in one line what does not."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pandas as pd

from training.config import RunConfig
from training.errors import received
from training.manifest import COLUMNS

Rows = pd.DataFrame
Mask = Callable[[Rows], "pd.Series[bool]"]
Sentence = Callable[[Rows, Any], str]
# What with_helpers adds: the rules about several rows look at these.
HELPERS = ("labels_of_image", "duplicate_of", "splits_of_group", "unplaced")


@dataclass(frozen=True)
class Rule:
    """One expectation.

    Attributes:
        expectation: its type, of Great Expectations' own or of `image_expectations`.
        kwargs: its arguments.
        meaning: what it means to someone who knows the images but not the pipeline; empty where the expectation says.
        breaks: marks the rows that break it; None for a rule about the whole table.
        sentence: says what is wrong with a row that breaks it, given all such rows (of its image, with `counted_by`).
        counted_by: "sha256" where all rows of an image are one problem.
        problems: all problems of a rule about the whole table.
    """

    name: str
    group: str
    expectation: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    meaning: str = ""
    breaks: Mask | None = None
    sentence: Sentence | None = None
    counted_by: str | None = None
    problems: Callable[[Rows], list[str]] | None = None


def with_helpers(table: Rows) -> Rows:
    """A copy with the HELPERS; they are null for images without content or group."""
    known = complete(table)
    content = known["sha256"].dropna()
    labels = known.dropna(subset=["sha256"]).drop_duplicates(["sha256", "label"])["sha256"].value_counts()
    copies = content[content.duplicated()]
    first = known.loc[content.drop_duplicates().index].set_index("sha256")["path"]
    splits = known.dropna(subset=["group"]).groupby("group")["split"].nunique()
    return table.assign(
        labels_of_image=known["sha256"].map(labels).astype("Int64"),
        duplicate_of=copies.map(first).reindex(table.index).astype("string"),
        splits_of_group=known["group"].map(splits).astype("Int64"),
        unplaced=known["leakage"].mask(known[["leakage", "split", "error"]].isna().all(axis=1), "no split"),
    )


def complete(table: Rows) -> Rows:
    """A copy in which every column of a manifest exists."""
    missing = {name: pd.Series(pd.NA, table.index, dtype=kind) for name, kind in COLUMNS.items() if name not in table}
    return table.assign(**missing)


def rules(config: RunConfig) -> tuple[Rule, ...]:
    """The contract; the gravest and most telling first. All but the first are about rows."""
    present = _present("path", "one"), _present("label", f"one of {_listed(config.data.classes)}")
    sides = tuple(_side(column, config) for column in ("width", "height"))
    images = (_decodable(), *sides, _mode(config), _one_label(), _unique(), _leakage(), _group())
    return (_columns(), *present, _label(config), *images)


def failed_rows(rows: Rows, contract: Sequence[Rule]) -> Rows:
    """`rule` (the first that a row breaks) and `reason` (all of them), by the index of the rows (with helpers)."""
    found: dict[Any, tuple[str, list[str]]] = {}
    for rule in contract:
        for index, line in _lines(rule, broken(rule, rows)):
            found.setdefault(index, (rule.name, []))[1].append(line)
    failed = (
        pd.DataFrame({"rule": [], "reason": []}, dtype="string")
        if not found
        else pd.DataFrame(
            [(name, "; ".join(lines)) for name, lines in found.values()],
            list(found),
            ["rule", "reason"],
            dtype="string",
        )
    )
    return failed.sort_index()


def broken(rule: Rule, rows: Rows) -> Rows:
    """Those of `rows` (with helpers) that break a rule about rows; none for a rule about the table."""
    return rows[rule.breaks(rows).fillna(value=False)] if rule.breaks else rows.iloc[:0]


def problem(rule: Rule, rows: Rows) -> str:
    """One line for a rule that `rows` (with helpers) break: the first case, and how many more; empty without any."""
    if rule.problems is not None:
        lines = rule.problems(rows)
        return _and_more(lines[0], len(lines)) if lines else ""
    bad = broken(rule, rows)
    count = bad[rule.counted_by].nunique() if rule.counted_by else len(bad)
    return _and_more(next(_lines(rule, bad))[1], count)


def place(row: Any) -> str:
    """How a row is called in a sentence; a name from outside may hold anything, a line break too."""
    if pd.isna(row.path) or not row.path:
        return f"manifest row {row.Index}"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in row.path)


def _lines(rule: Rule, bad: Rows) -> Iterator[tuple[Any, str]]:
    """Index and sentence of each row that breaks a rule; a sentence sees the rows of its own image alone."""
    assert rule.sentence is not None
    images: dict[Any, Rows] = dict(iter(bad.groupby(rule.counted_by))) if rule.counted_by else {}
    row: Any
    for row in bad.itertuples():
        yield row.Index, rule.sentence(images.get(row.sha256, bad), row)


def _and_more(line: str, count: int) -> str:
    return f"{line} (and {count - 1} more)" if count > 1 else line


def _columns() -> Rule:
    expected = [*COLUMNS, *HELPERS]
    return Rule(
        "columns",
        "schema",
        "expect_table_columns_to_match_set",
        {"column_set": expected, "exact_match": True},
        "The manifest has the columns that later steps read (and those counted for this check).",
        problems=partial(_wrong_columns, expected),
    )


def _wrong_columns(expected: Sequence[str], rows: Rows) -> list[str]:
    missing = [f"manifest: received no column {name!r}, expected it" for name in expected if name not in rows]
    return missing + [f"manifest: received the column {name!r}, expected none" for name in rows if name not in expected]


def _present(column: str, expected: str) -> Rule:
    return Rule(
        f"{column}_present",
        "schema",
        "expect_column_values_to_not_be_null",
        {"column": column},
        f"Every image has a {column}.",
        breaks=lambda rows: rows[column].isna(),
        sentence=lambda _, row: f"{place(row)}: received no {column}, expected {expected}",
    )


def _label(config: RunConfig) -> Rule:
    classes = list(config.data.classes)
    expected = f"one of {_listed(classes)}"
    return Rule(
        "known_label",
        "labels",
        "expect_column_values_to_be_in_set",
        {"column": "label", "value_set": classes},
        "Every label is one of the configured classes.",
        breaks=lambda rows: rows["label"].notna() & ~rows["label"].isin(classes),
        sentence=lambda _, row: f"label: received {row.label!r} ({place(row)}), expected {expected}",
    )


def _decodable() -> Rule:
    return Rule(
        "decodable",
        "images",
        "expect_images_to_be_decodable",
        breaks=lambda rows: rows["error"].notna(),
        sentence=lambda _, row: f"{place(row)}: received an unreadable image ({row.error}), expected a decodable image",
    )


def _side(column: str, config: RunConfig) -> Rule:
    low, high = config.data.min_side, config.data.max_side
    return Rule(
        f"{column}_in_bounds",
        "images",
        f"expect_image_{column}_to_be_between",
        {"min_value": low, "max_value": high},
        breaks=lambda rows: ~rows[column].between(low, high),
        sentence=lambda _, row: received(
            f"{place(row)}: {column}", int(getattr(row, column)), f"{low} to {high} pixels"
        ),
    )


def _mode(config: RunConfig) -> Rule:
    modes = list(config.data.modes)
    return Rule(
        "known_mode",
        "images",
        "expect_image_modes_to_be_in_set",
        {"value_set": modes},
        breaks=lambda rows: rows["mode"].notna() & ~rows["mode"].isin(modes),
        sentence=lambda _, row: received(f"{place(row)}: mode", row.mode, f"one of {_listed(modes)}"),
    )


def _one_label() -> Rule:
    return Rule(
        "one_label_an_image",
        "labels",
        "expect_one_label_per_image",
        breaks=lambda rows: rows["labels_of_image"] > 1,
        sentence=_labels_of,
        counted_by="sha256",
    )


def _labels_of(rows: Rows, row: Any) -> str:
    labels = list(dict.fromkeys(rows["label"].dropna()))
    return f"{place(row)}: received {len(labels)} labels ({_listed(labels)}) for one image, expected one"


def _unique() -> Rule:
    return Rule(
        "unique_content",
        "images",
        "expect_images_to_be_unique",
        breaks=lambda rows: rows["duplicate_of"].notna(),
        sentence=_copy_of,
    )


def _copy_of(_: Rows, row: Any) -> str:
    what = "a second time" if row.duplicate_of == row.path else f"the same content as {row.duplicate_of}"
    return f"{place(row)}: received {what}, expected every image once"


def _leakage() -> Rule:
    return Rule(
        "leakage",
        "splits",
        "expect_no_leakage_between_splits",
        {"column": "unplaced"},
        breaks=lambda rows: rows["unplaced"].notna(),
        sentence=lambda _, row: f"{place(row)}: received leakage ({row.unplaced}), expected every image in one split",
    )


def _group() -> Rule:
    return Rule(
        "group_in_one_split",
        "splits",
        "expect_column_values_to_be_between",
        {"column": "splits_of_group", "max_value": 1},
        "No group's images are in two splits.",
        breaks=lambda rows: rows["splits_of_group"] > 1,
        sentence=lambda _, row: (
            f"{place(row)}: received group {row.group!r} in {row.splits_of_group} splits, expected it in one"
        ),
    )


def _listed(values: Sequence[str]) -> str:
    return ", ".join(values)
