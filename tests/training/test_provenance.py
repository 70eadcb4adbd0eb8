import hashlib
import json
import os
import platform
import subprocess
import sys
from importlib import metadata

import psutil
import pytest

from tests.conftest import ROOT
from training import provenance
from training.provenance import code_commit, environment, read, record
from training.run_folder import open_run
from training.steps import run_step


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository of its own that holds the package, committed."""
    package = tmp_path / "checkout" / "training"
    package.mkdir(parents=True)
    (package / "provenance.py").write_text("old")
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", provenance.COMMIT):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(provenance, "_CODE", package)
    git(package, "init", "-q")
    git(package, "add", ".")
    git(package, *(["-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-qm", "first"]))
    return package


def git(folder, *arguments):
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_is_gits_and_changes_are_told(checkout):
    head = git(checkout, "rev-parse", "HEAD")
    assert code_commit() == head
    (checkout.parent / "notes.txt").write_text("of no matter to what the code does")
    assert code_commit() == head
    (checkout / "provenance.py").write_text("new")
    assert code_commit() == f"{head}+changes"
    (checkout / "provenance.py").write_text("old")
    (checkout / "another.py").write_text("new")
    assert code_commit() == f"{head}+changes"


def test_without_git_the_environment_says_which_commit(checkout, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_commit() is None
    monkeypatch.setenv(provenance.COMMIT, "")
    assert code_commit() is None
    monkeypatch.setenv(provenance.COMMIT, "abc")
    assert code_commit() == "abc"


def test_another_projects_commit_is_not_taken_for_ours(checkout, monkeypatch):
    """The package installed below somebody's checkout, as into its .venv."""
    installed = checkout.parent / ".venv" / "training"
    installed.mkdir(parents=True)
    (installed / "provenance.py").write_text("old")
    monkeypatch.setattr(provenance, "_CODE", installed)
    assert code_commit() is None


def test_the_environment_is_what_is_here():
    here = environment()
    assert json.loads(json.dumps(here)) == here
    assert here["versions"]["keras"] == metadata.version("keras")
    assert here["versions"]["tf2onnx"] == metadata.version("tf2onnx")
    assert here["python"] == sys.version.split()[0]
    assert here["threads"] == len(os.sched_getaffinity(0))
    assert here["memory_bytes"] == psutil.virtual_memory().total
    english = os.environ | {"LC_ALL": "C"}
    told = subprocess.run(["lscpu"], capture_output=True, text=True, check=True, env=english).stdout
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in told.splitlines())}
    assert here["processor"].partition(",")[0] in told
    if "CPU family" in facts:  # as x86 has it
        kind = f"{facts['Model name']}, family {facts['CPU family']}, model {facts['Model']}"
        assert here["processor"].removeprefix(kind) in ("", ", AVX2", ", AVX-512", ", AMX")


CPUINFO = """processor\t: {number}
cpu family\t: {family}
model\t\t: 1
model name\t: AMD EPYC
flags\t\t: fpu sse2 {flags}

"""


@pytest.mark.parametrize(
    ("family", "flags", "shown"),
    [
        (25, "avx avx2", "AMD EPYC, family 25, model 1, AVX2"),
        (25, "avx avx2 avx512f", "AMD EPYC, family 25, model 1, AVX-512"),
        (26, "avx avx2 avx512f amx_tile", "AMD EPYC, family 26, model 1, AMX"),
        (6, "avx", "AMD EPYC, family 6, model 1"),
    ],
)
def test_processors_of_one_name_are_told_apart(family, flags, shown, tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "_PROCESSORS", tmp_path / "cpuinfo")
    processors = [CPUINFO.format(number=number, family=family, flags=flags) for number in range(2)]
    (tmp_path / "cpuinfo").write_text("".join(processors))
    assert provenance._processor() == shown


def test_where_the_system_describes_no_processor_python_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "_PROCESSORS", tmp_path / "none")
    assert provenance._processor() == (platform.processor() or platform.machine())
    monkeypatch.setattr(provenance, "_PROCESSORS", tmp_path / "arm")
    (tmp_path / "arm").write_text("processor\t: 0\nFeatures\t: fp asimd\n\nprocessor\t: 1\n")
    assert provenance._processor() == (platform.processor() or platform.machine())


def test_a_run_says_what_it_was_made_from(small, few_cells, tmp_path):
    uri = run_step("ingest", small, str(tmp_path / "run"))
    run = open_run(small, uri)
    made = read(run.store)
    labels = [line.split(",") for line in (few_cells / "labels.csv").read_text().splitlines()[1:]]
    rows = sorted([path, hashlib.sha256((few_cells / path).read_bytes()).hexdigest(), label] for path, label in labels)
    assert made["data_sha256"] == hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    assert made["config_sha256"] == hashlib.sha256((tmp_path / "run" / "config.json").read_bytes()).hexdigest()
    assert made["seeds"] == {"seed": small.seed, "split.salt": small.split.salt}
    ingest = made["steps"]["ingest"]
    assert made["environments"] == {ingest["environment"]: environment()}
    assert ingest["began"].endswith("+00:00") and ingest["seconds"] >= 0


def test_each_step_says_in_which_environment_it_was_done(small, tmp_path, monkeypatch):
    run = open_run(small, run_step("ingest", small, str(tmp_path / "run")))
    elsewhere = environment() | {"processor": "another"}
    monkeypatch.setattr(provenance, "environment", lambda: elsewhere)
    record(run, "train", 0.0)
    made = read(run.store)
    assert made["environments"][made["steps"]["train"]["environment"]] == elsewhere
    assert len(made["environments"]) == 2
    record(run, "ingest", 0.0)
    assert list(read(run.store)["environments"].values()) == [elsewhere]
    assert read(run.store)["data_sha256"] == made["data_sha256"]


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff"])
def test_damage_to_it_is_no_reason_to_fail(small, tmp_path, content):
    run = open_run(small, run_step("ingest", small, str(tmp_path / "run")))
    made = read(run.store)
    run.store.write("provenance.json", content)
    assert read(run.store) == {}
    record(run, "validate", 0.0)
    assert read(run.store)["data_sha256"] == made["data_sha256"]
    assert set(read(run.store)["steps"]) == {"validate"}


def test_this_codes_commit_is_known_here():
    """As in every checkout; an installed copy says what NIGHTSHIFT_COMMIT does."""
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout")
    assert str(code_commit()).startswith(git(ROOT, "rev-parse", "HEAD"))
