"""What a night came to, as a table: from the run's own documents, whichever of them exist; pure but for reading."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.follow import Task
from training.config import RunConfig
from training.errors import NightshiftError
from training.run_folder import FAILURE
from training.store import Store, open_store
from training.verdict import loss_gap_limit

Document = dict[str, Any]
WIDTH = 34


@dataclass(frozen=True)
class Times:
    """Seconds that are not the night's own, and the night's from trigger to verdict."""

    install: float | None
    start: float
    verdict: float


@dataclass(frozen=True)
class Documents:
    """What the steps left in the run's folder."""

    validation: Document | None
    evaluation: Document | None
    verdict: Document | None
    failure: Document | None


def read_documents(run_uri: str) -> Documents:
    store = open_store(run_uri)
    keys = ("validation.json", "evaluation.json", "verdict.json", FAILURE)
    return Documents(*(_read(store, key) for key in keys))


def table(config: RunConfig, documents: Documents, tasks: list[Task], times: Times) -> list[str]:
    """The lines of the closing table."""
    evaluation = documents.evaluation
    rows = [*_data(documents.validation), *_losses(config, evaluation), *_verdict(documents), *_test(evaluation)]
    rows += [(f"task {task.name}", _task(task)) for task in tasks]
    rows += [("trigger to verdict", _seconds(times.verdict)), ("Airflow start (apart)", _seconds(times.start))]
    rows += [("installation (apart)", _seconds(times.install))] if times.install is not None else []
    return [f"{label:<{WIDTH}} {value}" for label, value in rows]


def failure_lines(failure: Document) -> list[str]:
    """What happened, why, and what to do."""
    lines = [f"{failure['step']} failed: {failure['message']}", f"cause: {failure['cause']}"]
    return [*lines, f"remedy: {failure['remedy']}"] if failure["remedy"] else lines


def pages(run_uri: str) -> list[str]:
    """Where to look further."""
    store = open_store(run_uri)
    found = [(label, key) for label, key in _PAGES.items() if store.exists(key)]
    return [f"{label:<{WIDTH}} {_shown(store.uri(key))}" for label, key in found]


_PAGES = {"report": "report.html", "Data Docs": "data_docs/index.html"}


def _data(validation: Document | None) -> Iterator[tuple[str, str]]:
    if validation is not None:
        reasons = ", ".join(f"{count} {rule}" for rule, count in validation["quarantined"].items())
        yield "images", f"{validation['images']:,}" + (f", in quarantine: {reasons}" if reasons else "")


def _losses(config: RunConfig, evaluation: Document | None) -> Iterator[tuple[str, str]]:
    if evaluation is None:
        return
    losses = evaluation["losses"]
    fit, served = losses["fit"], losses["served"]
    yield "fit loss", _nats(fit)
    yield "evaluate, before recalibration", _nats(losses["inference_before"])
    yield "evaluate, after recalibration", _nats(losses["inference"])
    if fit is not None and served is not None:
        yield "gap (served − fit)", _nats(served - fit)
    yield "limit", _nats(None if fit is None else loss_gap_limit(config.gate, fit), "none")


def _verdict(documents: Documents) -> Iterator[tuple[str, str]]:
    if documents.verdict is not None:
        causes = ", ".join(dict.fromkeys(reason["cause"] for reason in documents.verdict["reasons"]))
        yield "verdict", "accepted" if documents.verdict["accepted"] else f"refused ({causes})"


def _test(evaluation: Document | None) -> Iterator[tuple[str, str]]:
    test = (evaluation or {}).get("metrics", {}).get("test", {})
    if test.get("roc_auc") is not None:
        interval = test.get("roc_auc_interval")
        bounds = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
        yield "test ROC AUC", f"{test['roc_auc']:.3f}{bounds}"


def _task(task: Task) -> str:
    return task.state if task.seconds is None else f"{task.state:<8} {_seconds(task.seconds)}"


def _nats(value: float | None, absent: str = "not finite") -> str:
    return absent if value is None else f"{value:.3f}"


def _seconds(value: float) -> str:
    return f"{value:.1f} s"


def _shown(uri: str) -> str:
    return uri if "://" in uri else str(Path(uri).resolve())


def _read(store: Store, key: str) -> Document | None:
    try:
        return dict(json.loads(store.read(key)))
    except (NightshiftError, ValueError):
        return None
