"""What the images that a night goes on with must fulfil as a whole."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd

from training.config import RunConfig
from training.data_summary import DataSummary, Drift, Spread
from training.manifest_rules import Rule
from training.split import SPLITS

Rows = pd.DataFrame
_OF = {"label_share": "the classes' shares", "brightness": "the mean brightness", "size": "the images' size"}


def summarise(rows: Rows, classes: tuple[str, ...]) -> DataSummary | None:
    """The summary of a manifest's rows; None of none."""
    if rows.empty:
        return None
    shares = rows["label"].value_counts(normalize=True).to_dict()
    return DataSummary(
        images=len(rows),
        shares={label: float(shares.get(label, 0)) for label in classes},
        brightness=_spread(rows["brightness"]),
        log_pixels=_spread((rows["width"] * rows["height"]).astype("Float64").map(np.log)),
    )


def with_set_helpers(accepted: Rows, config: RunConfig, bad: float, drifts: Mapping[str, Drift]) -> Rows:
    """A copy of the accepted rows with what the rules below look at; shares and drifts are the same in every row."""
    cells = (accepted["label"] + " in " + accepted["split"]).astype("string")
    cells = cells.where(accepted["label"].isin(config.data.classes))
    counts = cells.map(cells.value_counts()).astype("Int64")
    drifted = {f"{name}_drift": drift.observed for name, drift in drifts.items()}
    return accepted.assign(class_and_split=cells, images_of_class_and_split=counts, bad_fraction=bad, **drifted)


def set_rules(config: RunConfig, bad: float, drifts: Mapping[str, Drift]) -> tuple[Rule, ...]:
    """Tolerance, counts, and how far the data may be from the last accepted ones (`drifts` are those limited)."""
    return (_bad(config, bad), *_count_rules(config), *(_drift(name, drift) for name, drift in drifts.items()))


def _bad(config: RunConfig, bad: float) -> Rule:
    limit = config.data.max_bad_fraction
    return Rule(
        "bad_fraction",
        "tolerance",
        "expect_column_max_to_be_between",
        {"column": "bad_fraction", "max_value": limit},
        "No larger share of rows than data.max_bad_fraction is in quarantine.",
        problems=lambda _: (
            [f"data.max_bad_fraction: received {bad:.2%} bad rows, expected at most {limit:.2%}"] if bad > limit else []
        ),
    )


def _count_rules(config: RunConfig) -> tuple[Rule, Rule]:
    least = config.split.min_per_class
    cells = [f"{label} in {split}" for split in SPLITS for label in config.data.classes]
    every = Rule(
        "every_class_in_every_split",
        "counts",
        "expect_column_distinct_values_to_contain_set",
        {"column": "class_and_split", "value_set": cells},
        "Training, validation and test each have images of each class.",
        problems=lambda rows: _few(rows, cells, range(1), least),
    )
    enough = Rule(
        "enough_of_each_class",
        "counts",
        "expect_column_min_to_be_between",
        {"column": "images_of_class_and_split", "min_value": least},
        "No class has fewer than split.min_per_class images in any split.",
        # With nothing to count, there is no smallest count either.
        problems=lambda rows: _few(rows, cells, range(1, least), least) or _few(rows, cells, range(1), least),
    )
    return every, enough


def _few(rows: Rows, cells: Sequence[str], counts: range, least: int) -> list[str]:
    found = rows["class_and_split"].value_counts().to_dict()
    few = [(found.get(cell, 0), cell) for cell in cells if found.get(cell, 0) in counts]
    return [f"split.min_per_class: received {n} images of {cell}, expected at least {least}" for n, cell in few]


def _drift(name: str, drift: Drift) -> Rule:
    what = drift.statistic.replace("_", " ")
    return Rule(
        f"{name}_drift",
        "drift",
        "expect_column_max_to_be_between",
        {"column": f"{name}_drift", "max_value": drift.limit},
        f"Since the last accepted data, {_OF[name]} moved by no more than drift.max_{name} ({what}).",
        problems=partial(_drifted, name, drift),
    )


def _drifted(name: str, drift: Drift, _: Rows) -> list[str]:
    what = drift.statistic.replace("_", " ")
    return [f"drift.max_{name}: received a {what} of {drift.observed:.3g}, expected at most {drift.limit:g}"]


def _spread(values: "pd.Series[float]") -> Spread:
    known = values.dropna().to_numpy(np.float64)
    return Spread(mean=float(known.mean()), sd=float(known.std())) if len(known) else Spread(mean=0.0, sd=0.0)
