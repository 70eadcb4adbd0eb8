"""What a night came to as metrics, by the channel that Airflow's own take: StatsD or OpenTelemetry, if either is on.

Names are ``nightshift.<model>.<metric>``, behind Airflow's own prefix; docker/grafana has what reads them. A task that
is killed cannot tell: `ended_at` not moving on says so.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator
from typing import Literal

from airflow.sdk.observability import stats

from training.config import RunConfig
from training.nights import night_of
from training.store import open_store

log = logging.getLogger(__name__)
Kind = Literal["gauge", "counter"]
Metric = tuple[Kind, str, float]


def tell_verdict(config: RunConfig, run_uri: str) -> None:
    """Of a run that was evaluated: its gaps, its quality, and what the gate said."""
    _send(config, run_uri, _verdict)


def tell_end(config: RunConfig, run_uri: str, outcome: str | None = None) -> None:
    """Of a run that is over: how it ended, and why; its `outcome` where the run's folder does not say."""
    _send(config, run_uri, lambda run_uri: _end(run_uri, outcome))


def _verdict(run_uri: str) -> Iterator[Metric]:
    verdict = json.loads(open_store(run_uri).read("verdict.json"))
    evaluation = json.loads(open_store(run_uri).read("evaluation.json"))
    yield "counter", "verdicts." + ("accepted" if verdict["accepted"] else "refused"), 1
    gauges = {
        "loss_gap": evaluation["gaps"]["served_minus_fit"],
        "batch_norm_gap": evaluation["gaps"]["served_minus_batch_statistics"],
        "test_roc_auc": evaluation["metrics"]["test"].get("roc_auc"),
    }
    yield from (("gauge", name, value) for name, value in gauges.items() if value is not None)


def _end(run_uri: str, outcome: str | None) -> Iterator[Metric]:
    night = night_of(run_uri)
    yield "counter", f"nights.{outcome or night.outcome}", 1
    if night.cause:
        yield "counter", f"failures.{night.cause}", 1
    gauges = {"seconds": night.seconds, "images": night.images, "champion": night.champion, "ended_at": time.time()}
    yield from (("gauge", name, value) for name, value in gauges.items() if value is not None)


def _send(config: RunConfig, run_uri: str, metrics: Callable[[str], Iterator[Metric]]) -> None:
    try:
        for kind, name, value in metrics(run_uri):
            send = stats.incr if kind == "counter" else stats.gauge
            send(f"nightshift.{config.name}.{name}", value)
    except Exception as error:  # noqa: BLE001 — no night fails for its metrics
        log.warning("%s: metrics could not be sent: %s", run_uri, error)
