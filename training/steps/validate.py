"""Hold the manifest against its contract; bad rows go into quarantine, and too many of them end the night."""

import logging
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from training import champion, expectations, manifest, nights
from training.data_summary import DataSummary
from training.errors import DataRejected, StoreError
from training.expectations import ValidationReport
from training.images import thumbnail
from training.offenders import LIMIT, Offender, add_offenders
from training.run_folder import Run
from training.store import Store, open_store

log = logging.getLogger(__name__)
INPUTS = ("manifest.parquet",)
OUTPUTS = ("validation.json", "quarantine.parquet")
_SIDE = 96


def work(run: Run) -> None:
    table = manifest.from_parquet(run.store.read("manifest.parquet"))
    with TemporaryDirectory() as folder:
        checked = expectations.check(table, run.config, Path(folder), _last_accepted(run))
        quarantine = table.join(checked.failed, how="inner").rename_axis("row").reset_index()
        add_offenders(Path(folder), list(_offenders(run, quarantine)))
        _keep_docs(run, Path(folder))
    run.store.write("quarantine.parquet", manifest.to_parquet(quarantine))
    run.write_json("validation.json", checked.report.tree())
    _conclude(checked.report, quarantine)


def _last_accepted(run: Run) -> DataSummary | None:
    """Of the data from which drift is measured: those of the accepted snapshot before this one, else the champion's.

    A night that must not promote may be of long ago, and is never held against a champion that came after it.
    """
    settings = run.config
    if settings.data.snapshot and (before := nights.accepted_before(settings, settings.data.snapshot)):
        return before.data
    entry = champion.current(open_store(settings.store.champion)) if settings.promote.enabled else None
    return None if entry is None else entry.data


def _offenders(run: Run, quarantine: pd.DataFrame) -> Iterator[Offender]:
    """The first images that each rule put into quarantine."""
    data = open_store(run.config.data.location)
    for rule, rows in quarantine.groupby("rule", sort=False):
        for row in rows.head(LIMIT).itertuples():
            yield Offender(str(rule), str(row.path), str(row.reason), _thumbnail(data, row))


def _thumbnail(data: Store, row: Any) -> bytes | None:
    if pd.isna(row.perceptual_hash):  # what could not be decoded once is not tried again
        return None
    try:
        return thumbnail(data.read(row.path), _SIDE)
    except StoreError:
        return None


def _keep_docs(run: Run, folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            run.store.write(f"data_docs/{path.relative_to(folder).as_posix()}", path.read_bytes())


def _conclude(report: ValidationReport, quarantine: pd.DataFrame) -> None:
    if not report.success:
        remedy = "Open data_docs/index.html, correct the data, start a new run."
        raise DataRejected(_told(report.problems), cause=report.cause, remedy=remedy)
    if len(quarantine):
        log.warning(
            "%d of %d rows are in quarantine, the first: %s", len(quarantine), report.images, quarantine["reason"][0]
        )
    log.info("%d images meet all %d expectations", report.accepted, len(report.results))


def _told(problems: tuple[str, ...]) -> str:
    return problems[0] + (f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else "")
