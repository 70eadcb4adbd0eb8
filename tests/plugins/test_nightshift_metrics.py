"""Metrics over a real socket, by Airflow's own client, and the dashboard that shows them."""

import json
import re
import shutil
import time

import pytest
import yaml
from airflow.observability.metrics.stats_utils import get_stats_factory
from airflow.sdk.observability import stats

from tests.conftest import ROOT
from tests.servers import statsd
from training.config import RunConfig

MAPPINGS = yaml.safe_load((ROOT / "docker" / "grafana" / "statsd_mapping.yaml").read_text())["mappings"]
DASHBOARD = json.loads((ROOT / "docker" / "grafana" / "nightshift.json").read_text())
REFUSED = {"step": "evaluate", "exit_code": 4, "cause": "batch_norm", "message": "m"}


@pytest.fixture
def sent(monkeypatch):
    """What Airflow sends: a function that gives every line so far, without the values' types."""
    with statsd() as (port, lines):
        metrics_to(monkeypatch, "127.0.0.1", port)
        yield lambda: dict(line.rpartition("|")[0].split(":") for line in _all(lines))
    stats.initialize(factory=stats_off, export_legacy_names=False)


def tell(*arguments):
    """As the DAG does when an evaluated night is over; plugins are found once Airflow has set the path."""
    from nightshift_metrics import tell_end, tell_verdict

    tell_verdict(*arguments)
    tell_end(*arguments)


def metrics_to(monkeypatch, host, port):
    for name, value in {"ON": "True", "HOST": host, "PORT": str(port)}.items():
        monkeypatch.setenv(f"AIRFLOW__METRICS__STATSD_{name}", value)
    # As Airflow does at the start of every task.
    stats.initialize(factory=get_stats_factory(), export_legacy_names=False)


def stats_off():
    from airflow._shared.observability.metrics.base_stats_logger import NoStatsLogger

    return NoStatsLogger()


def _all(lines):
    """A last line is waited for: datagrams to one socket of this machine come in order."""
    stats.incr("last")
    deadline = time.monotonic() + 30
    while "airflow.last:1|c" not in lines and time.monotonic() < deadline:
        time.sleep(0.01)
    return lines


def test_a_promoted_night(night: tuple, sent):
    config: RunConfig = night[1]
    run = night[0] / "run"
    evaluation = json.loads((run / "evaluation.json").read_text())
    tell(config, str(run))
    found = sent()
    of = f"airflow.nightshift.{config.name}"
    assert float(found[f"{of}.loss_gap"]) == evaluation["gaps"]["served_minus_fit"]
    assert float(found[f"{of}.batch_norm_gap"]) == evaluation["gaps"]["served_minus_batch_statistics"]
    assert float(found[f"{of}.test_roc_auc"]) == evaluation["metrics"]["test"]["roc_auc"]
    assert float(found[f"{of}.images"]) == json.loads((run / "validation.json").read_text())["accepted"]
    assert float(found[f"{of}.seconds"]) > 0 and abs(float(found[f"{of}.ended_at"]) - time.time()) < 600
    assert [found[f"{of}.{name}"] for name in ("verdicts.accepted", "nights.promoted", "champion")] == ["1", "1", "1"]


def test_a_refused_night_says_why(night: tuple, tmp_path, sent):
    config: RunConfig = night[1]
    run = tmp_path / "run"
    shutil.copytree(night[0] / "run", run)
    verdict = json.loads((run / "verdict.json").read_text())
    (run / "verdict.json").write_text(json.dumps(verdict | {"accepted": False}))
    (run / "failure.json").write_text(json.dumps(REFUSED))
    (run / "promotion.json").unlink()
    tell(config, str(run))
    found = sent()
    counted = {name.removeprefix(f"airflow.nightshift.{config.name}.") for name, value in found.items() if value == "1"}
    assert counted >= {"verdicts.refused", "nights.failed", "failures.batch_norm"}
    assert not counted & {"verdicts.accepted", "nights.promoted", "champion"}


def test_a_run_that_was_stopped_early_says_what_it_can(small: RunConfig, tmp_path, sent, caplog):
    (tmp_path / "failure.json").write_text(json.dumps(REFUSED | {"step": "ingest", "cause": "data_rejected"}))
    tell(small, str(tmp_path))
    names = {name.partition(f"nightshift.{small.name}.")[2] for name in sent()}
    assert names - {""} == {"nights.failed", "failures.data_rejected", "seconds", "ended_at"}
    assert "metrics could not be sent" in caplog.text


@pytest.mark.parametrize("host", ["no-such-host.invalid", "127.0.0.1"])
def test_without_a_server_no_night_fails(night: tuple, monkeypatch, host):
    metrics_to(monkeypatch, host, 9)  # where nobody listens
    tell(night[1], str(night[0] / "run"))
    stats.initialize(factory=stats_off, export_legacy_names=False)


def prometheus_name(line: str) -> tuple[str, dict[str, str]]:
    """As statsd_exporter's glob rules have it: the first that matches, a star for one part between dots."""
    for rule in MAPPINGS:
        parts = r"\.".join(r"([^.]*)" if part == "*" else re.escape(part) for part in rule["match"].split("."))
        if found := re.fullmatch(parts, line):
            return rule["name"], {name: found[int(value[1:])] for name, value in rule["labels"].items()}
    raise AssertionError(f"{line}: no rule matches")


def test_every_metric_has_a_name_in_prometheus_and_every_panel_asks_for_one(night: tuple, tmp_path, sent):
    run = tmp_path / "run"
    shutil.copytree(night[0] / "run", run)
    (run / "failure.json").write_text(json.dumps(REFUSED))
    tell(night[1], str(run))
    (run / "failure.json").unlink()
    tell(night[1], str(run))
    named = [prometheus_name(name) for name in sent() if "nightshift" in name]
    assert {labels["model"] for _, labels in named} == {night[1].name}
    names = {name for name, _ in named}
    assert names == {rule["name"] for rule in MAPPINGS}
    asked = {name for panel in DASHBOARD["panels"] for target in panel["targets"] for name in _names(target["expr"])}
    assert asked == names
    labels = {label for rule in MAPPINGS for label in rule["labels"]}
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            assert set(re.findall(r"by \((\w+)\)", target["expr"])) <= labels
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels


def _names(query: str) -> list[str]:
    return re.findall(r"nightshift_\w+", query)


def test_the_dashboard_can_be_imported():
    """What Grafana's import asks for, and panels that lie side by side."""
    assert DASHBOARD["uid"] and DASHBOARD["title"] and isinstance(DASHBOARD["schemaVersion"], int)
    assert "id" not in DASHBOARD  # Grafana's own
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) - {"__all"} == variables
    taken = set[tuple[int, int]]()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and max(x for x, _ in cells) < 24
        taken |= cells
