"""How long a large manifest takes to validate, and how much memory.

    python benchmarks/validation.py [--rows 1000000]

A synthetic manifest, half a per cent of its rows bad in several ways, against the standard
contract and an accepted data set before it, with Data Docs.
"""

import argparse
import contextlib
import importlib.util
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from training.config import parse_config
from training.expectations import check
from training.manifest import COLUMNS, typed
from training.split import SPLITS

CLASSES = ("intact", "defective")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    config = parse_config(
        {"name": "synthetic", "data": {"uri": "data", "classes": CLASSES}, "store": {"champion": "champion"}}
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    table = synthetic(options.rows)
    with tempfile.TemporaryDirectory() as folder:
        last = check(table.head(10_000), config, Path(folder) / "small").report.summary  # imports, too
        begun = time.perf_counter()
        checked = check(table, config, Path(folder) / "docs", last)
        seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"{len(table):,} rows: {seconds:.1f} s, peak memory {peak:,.0f} MiB ({before:,.0f} before the manifest)")
    beside_pandera(table, seconds)
    print(f"in quarantine: {checked.report.quarantined}; the night goes on: {checked.report.success}")


def beside_pandera(table: pd.DataFrame, seconds: float) -> None:
    """The rules that a schema of pandera can say, where it is installed: no drift, no leakage, no Data Docs."""
    if importlib.util.find_spec("pandera") is None:
        return
    import pandera.pandas as pa

    column, check_that = pa.Column, pa.Check
    schema = pa.DataFrameSchema(
        {
            "path": column(unique=True),
            "sha256": column(unique=True, nullable=True),
            "error": column(checks=check_that(lambda found: found.isna()), nullable=True),
            "label": column(checks=check_that.isin(CLASSES)),
            "split": column(checks=check_that.isin(SPLITS)),
            "width": column(checks=check_that.ge(32)),
            "height": column(checks=check_that.ge(32)),
            "brightness": column(checks=check_that.in_range(0.02, 0.98)),
            "contrast": column(checks=check_that.ge(0.001)),
        },
    )
    begun = time.perf_counter()
    with contextlib.suppress(pa.errors.SchemaErrors):
        schema.validate(table, lazy=True)
    theirs = time.perf_counter() - begun
    print(
        f"rows a second: {len(table) / seconds:,.0f}; pandera, nine of the rules and no page: "
        f"{len(table) / theirs:,.0f}; ratio {theirs / seconds:.2f}"
    )


def synthetic(rows: int) -> pd.DataFrame:
    """A manifest whose images differ as real ones do."""
    random = np.random.default_rng(0)
    names = pd.Series(np.arange(rows)).astype(str)
    table = pd.DataFrame(
        {
            "path": "images/" + names + ".png",
            "sha256": names.map(lambda name: f"{int(name):064x}"),
            "perceptual_hash": pd.Series(random.integers(2**63, size=rows)).map(lambda value: f"{value:016x}"),
            "width": random.integers(200, 400, rows),
            "height": random.integers(200, 400, rows),
            "mode": random.choice(["L", "RGB"], rows),
            "format": "PNG",
            "bytes": random.integers(10_000, 90_000, rows),
            "brightness": random.normal(0.5, 0.1, rows),
            "contrast": random.normal(0.2, 0.05, rows),
            "label": random.choice(CLASSES, rows, p=(0.7, 0.3)),
            "split": random.choice(SPLITS, rows, p=(0.65, 0.15, 0.2)),
        },
        columns=list(COLUMNS),
    )
    table = typed(table)
    bad = random.choice(rows, (5, rows // 1000), replace=False)
    table.loc[bad[0], "error"] = "OSError: image file is truncated"
    table.loc[bad[1], "label"] = "defect"
    table.loc[bad[2], "width"] = 8
    table.loc[bad[3], "sha256"] = table["sha256"][0]
    table.loc[bad[4], "leakage"] = "it would be in train and test"
    return table


if __name__ == "__main__":
    main()
