"""The plugins as Airflow finds them, and a real API server that shows made-up nights."""

import os
import sys
from pathlib import Path

import pytest

from tests import recorded_nights
from tests.airflow_pages import served
from tests.conftest import ROOT

SECRET = "WHAT-NOBODY-MAY-SEE"


@pytest.fixture(scope="session", autouse=True)
def plugins(tmp_path_factory):
    """Airflow's own home, and the plugins folder on the path, as Airflow puts it there."""
    os.environ.setdefault("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
    sys.path.append(str(ROOT / "plugins"))
    yield
    sys.path.remove(str(ROOT / "plugins"))


@pytest.fixture(scope="session")
def pages(tmp_path_factory):
    """A server with models of 1,000, of 47, of hostile and of no nights; `outsider` may read `second` alone."""
    home = tmp_path_factory.mktemp("pages")
    runs, dags, ran = home / "runs", {"elsewhere": (["other"], {})}, []
    for name, found in {"first": recorded_nights.nights(1000), "second": recorded_nights.nights(45, seed=3)}.items():
        recorded_nights.keep(str(runs), name, found, folders=5)
        ran += [[f"retrain_{name}", run_id, _state(night), night.began] for run_id, night in found]
    ran += [["retrain_second", "manual__killed", "failed", "2024-02-16T02:00:00+00:00"]]
    ran += [["retrain_second", "manual__2024+now", "running", "2024-02-17T02:00:00+00:00"]]
    leave_traps(home, runs)
    for name in ("first", "second", "hostile", "empty"):
        dags[f"retrain_{name}"] = (["nightshift"], {"store__runs": str(runs)})
    with served(home, dags, ran) as server:
        yield server


def _state(night):
    return "failed" if night.outcome == "failed" else "success"


def leave_traps(home: Path, runs: Path) -> None:
    """What must not get out: files beside the runs, links to them, and texts that are markup."""
    (home / "secret.html").write_text(SECRET)
    (home / "outside").mkdir()
    (home / "outside" / "report.html").write_text(SECRET)
    recorded_nights.keep(str(runs), "hostile", [("markup", recorded_nights.script_night())], folders=1)
    below = runs / "hostile"
    (below / "linked").symlink_to(home / "outside")
    (below / "markup" / "report.html").symlink_to(home / "secret.html")
    (below / "markup" / "data_docs" / "linked.html").symlink_to(home / "secret.html")
    (below / "markup" / "data_docs" / "folder").symlink_to(home / "outside")
    (below / "markup" / "data_docs" / ".hidden.html").write_text(SECRET)
    (below / "markup" / "data_docs" / "keys.pem").write_text(SECRET)
    (below / "markup" / "outside.html").write_text(SECRET)
    (below / "<script>alert(1)<script>").mkdir()
    (below / "<script>alert(1)<script>" / "report.html").write_text(SECRET)
