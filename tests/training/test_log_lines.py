import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT, SOLAR_CELLS


def call(form, *arguments):
    environment = os.environ | {"NIGHTSHIFT_LOG_FORMAT": form}
    return subprocess.run(
        [sys.executable, "-m", "training", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


def ingest(form, data, tmp_path):
    places = (f"data.uri={data}", f"store.champion={tmp_path}/champion")
    settings = [word for place in places for word in ("--set", place)]
    return call(form, "ingest", "--config", str(SOLAR_CELLS), "--run", f"{tmp_path}/{form}", *settings)


def test_as_json_each_line_says_when_what_and_of_which_run(few_cells, tmp_path):
    text, done = (ingest(form, few_cells, tmp_path).stdout.splitlines() for form in ("text", "json"))
    lines = [json.loads(line) for line in done[:-1]]
    assert [line["event"] for line in lines if "labelled images" in line["event"]] == [
        line for line in text if "labelled images" in line
    ]
    for line in lines:
        assert line["level"] == "info" and line["step"] == "ingest" and line["run"] == f"{tmp_path}/json"
        assert line["timestamp"].endswith("+00:00") and line["logger"].startswith("training")


@pytest.mark.parametrize("form", ["xml", "JSON"])
def test_another_form_is_bad_configuration(form):
    done = call(form, "champion", "--store", "nowhere")
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == f"bad_config: NIGHTSHIFT_LOG_FORMAT: received {form!r}, expected text or json"
