"""Hold the manifest against its contract with Great Expectations; bad data ends the night here."""

import logging
from pathlib import Path
from tempfile import TemporaryDirectory

from training import expectations, manifest
from training.errors import DataRejected
from training.run_folder import Run

log = logging.getLogger(__name__)
INPUTS = ("manifest.parquet",)
OUTPUTS = ("validation.json", "quarantine.parquet")


def work(run: Run) -> None:
    table = manifest.from_parquet(run.store.read("manifest.parquet"))
    with TemporaryDirectory() as folder:
        report = expectations.check(table, run.config, Path(folder))
        _keep_docs(run, Path(folder))
    run.store.write("quarantine.parquet", manifest.to_parquet(expectations.failed_rows(table, run.config)))
    run.write_json("validation.json", report.tree())
    if not report.success:
        raise DataRejected(
            _told(report.problems), remedy="Open data_docs/index.html, correct the data, start a new run."
        )
    log.info("%d images meet all %d expectations", len(table), len(report.results))


def _keep_docs(run: Run, folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            run.store.write(f"data_docs/{path.relative_to(folder).as_posix()}", path.read_bytes())


def _told(problems: tuple[str, ...]) -> str:
    return problems[0] + (f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else "")
