"""What a manifest must fulfil, and how to say in one line what does not."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pandas as pd

from training.config import RunConfig
from training.errors import received
from training.manifest import COLUMNS
from training.split import SPLITS

Rows = pd.DataFrame
Mask = Callable[[Rows], "pd.Series[bool]"]
Sentence = Callable[[Rows, Any], str]
# What with_helpers adds: the rules about several rows look at these.
HELPERS = ("labels_of_image", "class_and_split", "images_of_class_and_split")


@dataclass(frozen=True)
class Rule:
    """One expectation, known to Great Expectations by the name of its class.

    Attributes:
        expectation: class name in ``great_expectations.expectations``.
        column: the column it looks at; empty for the whole table.
        meaning: what it means to someone who knows the images but not the pipeline.
        limits: the expectation's further arguments.
        breaks: marks the rows that break it; None for a rule about the whole table.
        sentence: says what is wrong with a row that breaks it, given all such rows (of its image, with `counted_by`).
        counted_by: "sha256" where all rows of an image are one problem.
        problems: all problems of a rule about the whole table.
    """

    name: str
    group: str
    expectation: str
    column: str
    meaning: str
    limits: dict[str, Any] = field(default_factory=dict)
    breaks: Mask | None = None
    sentence: Sentence | None = None
    counted_by: str | None = None
    problems: Callable[[Rows], list[str]] | None = None


def with_helpers(table: Rows, config: RunConfig) -> Rows:
    """A copy with the HELPERS; they are null for images without content or without a known label and split."""
    known = complete(table)
    labels = known.groupby("sha256")["label"].transform("nunique").astype("Int64")
    cells = (known["label"] + " in " + known["split"]).astype("string").where(known["label"].isin(config.data.classes))
    counts = cells.map(cells.value_counts()).astype("Int64")
    return table.assign(labels_of_image=labels, class_and_split=cells, images_of_class_and_split=counts)


def complete(table: Rows) -> Rows:
    """A copy in which every column of a manifest exists."""
    missing = {name: pd.Series(pd.NA, table.index, dtype=kind) for name, kind in COLUMNS.items() if name not in table}
    return table.assign(**missing)


def rules(config: RunConfig) -> tuple[Rule, ...]:
    """The contract; the gravest and most telling first."""
    return (_columns(), *_row_rules(config), *_count_rules(config))


def failed_rows(table: Rows, config: RunConfig) -> Rows:
    """The rows that break a rule about rows, with a `reason` column that says which."""
    rows = with_helpers(complete(table), config)
    reasons: dict[Any, list[str]] = {}
    for rule in _row_rules(config):
        for index, line in _lines(rule, broken(rule, rows)):
            reasons.setdefault(index, []).append(line)
    failed = table[table.index.isin(list(reasons))]
    told = pd.Series(["; ".join(reasons[index]) for index in failed.index], failed.index, dtype="string")
    return failed.assign(reason=told).reset_index(drop=True)


def broken(rule: Rule, rows: Rows) -> Rows:
    """Those of `rows` (with helpers) that break a rule about rows; none for a rule about the table."""
    return rows[rule.breaks(rows).fillna(value=False)] if rule.breaks else rows.iloc[:0]


def problem(rule: Rule, rows: Rows) -> str:
    """One line for a rule that `rows` (with helpers) break: the first case, and how many more there are."""
    if rule.problems is not None:
        lines = rule.problems(rows)
        return _and_more(lines[0], len(lines))
    bad = broken(rule, rows)
    count = bad[rule.counted_by].nunique() if rule.counted_by else len(bad)
    return _and_more(next(_lines(rule, bad))[1], count)


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
        "ExpectTableColumnsToMatchSet",
        "",
        "The manifest has the columns that later steps read (and those counted for this check).",
        {"column_set": expected, "exact_match": True},
        problems=partial(_wrong_columns, expected),
    )


def _wrong_columns(expected: Sequence[str], rows: Rows) -> list[str]:
    missing = [f"manifest: received no column {name!r}, expected it" for name in expected if name not in rows]
    return missing + [f"manifest: received the column {name!r}, expected none" for name in rows if name not in expected]


def _row_rules(config: RunConfig) -> tuple[Rule, ...]:
    present = tuple(_present(column, config) for column in ("path", "label", "split"))
    sides = tuple(_side(column, config) for column in ("width", "height"))
    return (*present, _label(config), _decodable(), *sides, _mode(config), _one_label(), _unique())


def _present(column: str, config: RunConfig) -> Rule:
    expected = {"path": "one", "label": f"one of {_listed(config.data.classes)}", "split": f"one of {_listed(SPLITS)}"}
    return Rule(
        f"{column}_present",
        "schema",
        "ExpectColumnValuesToNotBeNull",
        column,
        f"Every image has a {column}.",
        breaks=lambda rows: rows[column].isna(),
        sentence=lambda _, row: f"{_place(row)}: received no {column}, expected {expected[column]}",
    )


def _label(config: RunConfig) -> Rule:
    classes = list(config.data.classes)
    expected = f"one of {_listed(classes)}"
    return Rule(
        "known_label",
        "labels",
        "ExpectColumnValuesToBeInSet",
        "label",
        "Every label is one of the configured classes.",
        {"value_set": classes},
        breaks=lambda rows: rows["label"].notna() & ~rows["label"].isin(classes),
        sentence=lambda _, row: f"label: received {row.label!r} ({_place(row)}), expected {expected}",
    )


def _decodable() -> Rule:
    return Rule(
        "decodable",
        "images",
        "ExpectColumnValuesToBeNull",
        "error",
        "Every file is an image that can be decoded to its end.",
        breaks=lambda rows: rows["error"].notna(),
        sentence=lambda _, row: (
            f"{_place(row)}: received an unreadable image ({row.error}), expected a decodable image"
        ),
    )


def _side(column: str, config: RunConfig) -> Rule:
    low, high = config.data.min_side, config.data.max_side
    return Rule(
        f"{column}_in_bounds",
        "images",
        "ExpectColumnValuesToBeBetween",
        column,
        f"No image's {column} is below data.min_side or above data.max_side (pixels).",
        {"min_value": low, "max_value": high},
        breaks=lambda rows: ~rows[column].between(low, high),
        sentence=lambda _, row: received(
            f"{_place(row)}: {column}", int(getattr(row, column)), f"{low} to {high} pixels"
        ),
    )


def _mode(config: RunConfig) -> Rule:
    modes = list(config.data.modes)
    return Rule(
        "known_mode",
        "images",
        "ExpectColumnValuesToBeInSet",
        "mode",
        "Every image's colour mode (Pillow's name) is one of data.modes.",
        {"value_set": modes},
        breaks=lambda rows: rows["mode"].notna() & ~rows["mode"].isin(modes),
        sentence=lambda _, row: received(f"{_place(row)}: mode", row.mode, f"one of {_listed(modes)}"),
    )


def _one_label() -> Rule:
    return Rule(
        "one_label_an_image",
        "labels",
        "ExpectColumnValuesToBeBetween",
        "labels_of_image",
        "No image has two labels, whether listed twice or stored twice.",
        {"max_value": 1},
        breaks=lambda rows: rows["labels_of_image"] > 1,
        sentence=_labels_of,
        counted_by="sha256",
    )


def _labels_of(rows: Rows, row: Any) -> str:
    labels = list(dict.fromkeys(rows["label"].dropna()))
    return f"{_place(row)}: received {len(labels)} labels ({_listed(labels)}) for one image, expected one"


def _unique() -> Rule:
    return Rule(
        "unique_content",
        "images",
        "ExpectColumnValuesToBeUnique",
        "sha256",
        "No two files hold the same bytes.",
        breaks=lambda rows: rows["sha256"].notna() & rows["sha256"].duplicated(keep=False),
        sentence=_copies_of,
        counted_by="sha256",
    )


def _copies_of(rows: Rows, row: Any) -> str:
    other = next((path for path in rows["path"].dropna() if path != row.path), None)
    what = f"the same content as {other}" if other else f"one image {len(rows)} times"
    return f"{_place(row)}: received {what}, expected every image once"


def _count_rules(config: RunConfig) -> tuple[Rule, Rule]:
    least = config.split.min_per_class
    cells = [f"{label} in {split}" for split in SPLITS for label in config.data.classes]
    every = Rule(
        "every_class_in_every_split",
        "counts",
        "ExpectColumnDistinctValuesToContainSet",
        "class_and_split",
        "Training, validation and test each have images of each class.",
        {"value_set": cells},
        problems=lambda rows: _few(rows, cells, range(1), least),
    )
    enough = Rule(
        "enough_of_each_class",
        "counts",
        "ExpectColumnMinToBeBetween",
        "images_of_class_and_split",
        "No class has fewer than split.min_per_class images in any split.",
        {"min_value": least},
        # With nothing to count, there is no smallest count either.
        problems=lambda rows: _few(rows, cells, range(1, least), least) or _few(rows, cells, range(1), least),
    )
    return every, enough


def _few(rows: Rows, cells: Sequence[str], counts: range, least: int) -> list[str]:
    found = rows["class_and_split"].value_counts().to_dict()
    few = [(found.get(cell, 0), cell) for cell in cells if found.get(cell, 0) in counts]
    return [f"split.min_per_class: received {n} images of {cell}, expected at least {least}" for n, cell in few]


def _place(row: Any) -> str:
    return f"manifest row {row.Index}" if pd.isna(row.path) else str(row.path)


def _listed(values: Sequence[str]) -> str:
    return ", ".join(values)
