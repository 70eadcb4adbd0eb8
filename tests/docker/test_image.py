"""The image: what holds without building it. `docker/build_without_engine.sh` builds it, and runs nights in it."""

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.docker.dockerfile import DOCKERFILE, copied, image_environment, of

DOCKER = ROOT / "docker"
PACKAGES = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"


def pins(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / name).read_text(), flags=re.MULTILINE))


# --- Dockerfile, .dockerignore


def test_the_linter_finds_nothing():
    hadolint = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([hadolint, "--format", "json", DOCKERFILE], capture_output=True, text=True, check=False)
    assert json.loads(found.stdout) == []


def test_every_stage_is_built_on_the_one_base_that_can_be_given_by_its_digest():
    assert [rest.partition("=")[0] for rest in of("ARG")] == ["PYTHON_IMAGE", "PROCESSOR", "PYTHON_IMAGE"]
    assert re.fullmatch(r"PYTHON_IMAGE=python:\d+\.\d+\.\d+-slim-[a-z]+", of("ARG")[0])
    *stages, last = of("FROM")
    assert stages == [f"${{PYTHON_IMAGE}} AS {stage}" for stage in ("build", "code", "worker")]
    assert last == "worker AS nightshift"  # what is built when no target is named
    assert any("base.name=${PYTHON_IMAGE}" in rest for rest in of("LABEL"))


def test_the_image_does_not_run_as_root():
    assert of("USER") == ["50000:50000"]
    made = {words for rest in of("RUN") for words in re.findall(r"--[ug]id \d+", rest)}
    assert made == {"--uid 50000", "--gid 50000"}


def test_all_that_is_written_goes_to_volumes():
    environment = image_environment()
    assert environment["HOME"] == "/tmp"
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
    assert f"touch {environment['AIRFLOW_HOME']}/airflow.cfg" in " ".join(of("RUN"))


def test_every_source_exists_and_reaches_the_build():
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert patterns[0] == "*"
    # Hidden files are left out, save the one that tells Airflow which plugins only its API server needs.
    assert {pattern[1:] for pattern in patterns if pattern[0] == "!"} == {*copied(), "plugins/.airflowignore"}
    assert patterns.index("!plugins/.airflowignore") > patterns.index("**/.*")
    assert [source for source in copied() if not (ROOT / source).exists()] == []
    # What is left out again after that is rubbish and secrets, never code.
    left_out = [pattern.removeprefix("**/") for pattern in patterns[1:] if pattern[0] != "!"]

    def ignored(path):
        return any(fnmatch(part, name) for part in Path(path).parts for name in left_out)

    assert ignored("training/__pycache__/x.pyc")
    assert ignored("training/.env")
    files = [path.relative_to(ROOT) for source in copied() for path in (ROOT / source).rglob("*")]
    code = [path for path in files if path.suffix in {".py", ".yaml", ".jinja"}]
    assert len(code) > 20
    assert [path for path in code if ignored(path)] == []


def test_the_sample_images_are_not_installed():
    requirements = [source for source in copied() if source.endswith(".txt")]
    assert "requirements-demo" not in DOCKERFILE.read_text()
    assert [name for name in requirements if "elpv" in (ROOT / name).read_text()] == []
    code = {"training", "plugins", "dags", "docs/runbook.md", "docker/trim.sh"}
    assert set(copied()) == {"LICENSE", *requirements, *code}


def test_tensorflow_is_the_release_that_was_tested():
    wanted = pins("requirements.txt")["tensorflow"]
    assert pins("docker/requirements-cpu.txt") == {"tensorflow-cpu": wanted, "tensorflow": wanted}
    assert pins("docker/requirements-gpu.txt")["tensorflow"] == wanted


@pytest.mark.parametrize("name", ["requirements-production.txt", "docker/requirements-gpu.txt"])
def test_what_is_installed_together_agrees(name):
    more, rest = pins(name), pins("requirements.txt")
    assert {shared: more[shared] for shared in more.keys() & rest.keys()} == {
        shared: rest[shared] for shared in more.keys() & rest.keys()
    }


# --- trim.sh


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A new environment with a little of each thing that trim.sh looks for, and a library of a real wheel's."""
    made = tmp_path / "venv"
    venv.create(made, symlinks=True)
    packages = made / PACKAGES
    for name in (
        "airflow/cli.py",
        "airflow/ui/dist/index.html",
        "airflow/api_fastapi/auth/managers/simple/ui/dist/index.html",
        "airflow/providers/fab/__init__.py",
        "apache_airflow_providers_fab-1.0.dist-info/METADATA",
        "flask_appbuilder/__init__.py",
        "flask_appbuilder-1.0.dist-info/METADATA",
        "pandas/tests/test_it.py",
        "plotly/__init__.py",
        "plotly-1.0.dist-info/METADATA",
        "tensorflow/include/tensor.h",
        "tensorflow/__init__.py",
        "numpy/libnpymath.a",
    ):
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).touch()
    shutil.copyfile(_compiled("grpc/_cython/cygrpc"), packages / "tensorflow" / "library.so")
    return made


def _compiled(module: str) -> Path:
    return next(Path(sysconfig.get_path("platlib")).glob(f"{module}*.so"))


@pytest.mark.skipif(shutil.which("strip") is None, reason="strip, of Debian's binutils, is not installed")
def test_pages_come_back_and_rubbish_does_not(environment, tmp_path):
    before = {path.relative_to(environment) for path in environment.rglob("*") if path.is_file()}
    pages = tmp_path / "pages"
    subprocess.run([DOCKER / "trim.sh", environment, pages], check=True)
    packages, moved = environment / PACKAGES, pages / PACKAGES
    assert {path.name for path in packages.iterdir()} - {"__pycache__"} >= {"airflow", "tensorflow", "pandas", "numpy"}
    assert not [
        path for path in packages.rglob("*") if re.search("fab|flask|plotly|/ui", str(path.relative_to(packages)))
    ]
    assert (moved / "plotly" / "__pycache__").is_dir()
    # As the Dockerfile lays one over the other.
    shutil.copytree(pages, environment, dirs_exist_ok=True)
    after = {path.relative_to(environment) for path in environment.rglob("*") if path.is_file()}
    assert {path.name for path in before - after} == {"test_it.py", "tensor.h", "libnpymath.a"}
    assert {path.suffix for path in after - before} == {".pyc"}


@pytest.mark.skipif(shutil.which("strip") is None, reason="strip, of Debian's binutils, is not installed")
def test_compiled_files_hold_whatever_their_sources_times_are(environment, tmp_path):
    subprocess.run([DOCKER / "trim.sh", environment, tmp_path / "pages"], check=True)
    (compiled,) = (environment / PACKAGES / "airflow").glob("__pycache__/*.pyc")
    assert int.from_bytes(compiled.read_bytes()[4:8], "little") == 0b01  # PEP 552: by hash, and not looked at
