"""The installer, on a checkout small enough to be installed for real and without a network."""

import subprocess
import sys
from pathlib import Path

import pytest

from runner import install

BACKEND = """
import zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "tiny-1-py3-none-any.whl"
    info = "tiny-1.dist-info"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
"""
PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


@pytest.fixture
def checkout(tmp_path):
    """A project without requirements that builds itself."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "backend.py").write_text(BACKEND)
    for name in install.PRODUCTION:
        (folder / name).write_text("")
    return folder


def stages(capsys) -> list[str]:
    """The stages told as finished; a slow machine has lines in between."""
    return [line.partition(":")[0] for line in capsys.readouterr().out.splitlines() if " in " in line]


def test_makes_an_environment_and_the_second_time_does_nothing(checkout, capsys):
    python = install.ensure(checkout, install.RUNTIME)
    assert stages(capsys) == ["environment", "packages", "nightshift"]
    assert subprocess.run([python, "-m", "pip", "show", "-q", "tiny"], check=False).returncode == 0
    assert install.ensure(checkout, install.RUNTIME) == python
    assert stages(capsys) == []


def test_development_includes_the_runtime_and_a_changed_file_installs_again(checkout, capsys):
    install.ensure(checkout, install.DEVELOPMENT)
    stages(capsys)
    install.ensure(checkout, install.RUNTIME)
    assert stages(capsys) == []
    (checkout / "requirements.txt").write_text("# new\n")
    install.ensure(checkout, install.RUNTIME)
    assert stages(capsys) == ["packages", "nightshift"]


@pytest.mark.parametrize("damage", ["half made", "broken python", "no pip"])
def test_a_damaged_environment_is_made_again(checkout, capsys, damage):
    venv = checkout / ".venv"
    if damage == "half made":
        (venv / "bin").mkdir(parents=True)
    else:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    if damage == "broken python":
        (venv / "bin" / "python").unlink()
        (venv / "bin" / "python").symlink_to("/nowhere/python")
    python = install.ensure(checkout, install.RUNTIME)
    assert "environment" in stages(capsys)
    assert subprocess.run([python, "-m", "pip", "show", "-q", "tiny"], check=False).returncode == 0


def test_a_moved_checkout_is_installed_again(checkout, capsys):
    install.ensure(checkout, install.RUNTIME)
    stages(capsys)
    moved = checkout.rename(checkout.with_name("moved"))
    install.ensure(moved, install.RUNTIME)
    assert "nightshift" in stages(capsys)


def test_what_cannot_be_installed_is_one_line(checkout, capsys):
    (checkout / "requirements.txt").write_text("./not-there.whl\n")
    with pytest.raises(install.InstallError, match="packages failed: ERROR") as failure:
        install.ensure(checkout, install.RUNTIME)
    assert "\n" not in str(failure.value)
    assert not (checkout / ".venv" / "nightshift-stamp").exists()


@pytest.mark.parametrize(("flags", "venv"), [([], ".venv"), (["--production"], ".venv-production")])
def test_runs_what_follows_in_the_environment(checkout, flags, venv):
    script = (Path(install.__file__).read_text(), checkout / "runner" / "install.py")
    script[1].parent.mkdir()
    script[1].write_text(script[0])
    code = f"import os, sys; print(sys.prefix, float(os.environ['{install.SECONDS}']) > 0, sys.argv[1:])"
    command = [sys.executable, script[1], *flags, "--", "-c", code, "--set", "a.b=c d"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[-1] == f"{checkout / venv} True ['--set', 'a.b=c d']"
    assert [path.name for path in checkout.glob(".venv*")] == [venv]
