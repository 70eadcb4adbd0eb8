"""Where and when a run happened: the one file in which two equal runs differ."""

import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from training.run_folder import Run

PROVENANCE = "provenance.json"
_PACKAGES = ("keras", "tensorflow", "numpy", "pandas", "pillow", "great-expectations", "apache-airflow", "scikit-learn")


def record(run: Run, step: str, begun: float) -> None:
    """Add a finished step: when it began (seconds since the epoch), how long it took, on which machine."""
    tree = run.read_json(PROVENANCE) if run.store.exists(PROVENANCE) else {}
    steps = dict(tree.get("steps", {}))  # type: ignore[call-overload]
    steps[step] = {
        "began": datetime.fromtimestamp(begun, UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - begun, 1),
        "host": platform.node(),
    }
    run.write_json(PROVENANCE, {"steps": steps, **_machine()})


def code_commit() -> str | None:
    """The commit of this code, with "+changes" where files differ from it; without git what NIGHTSHIFT_COMMIT says."""
    try:
        changed = _git("status", "--porcelain", "--untracked-files=no")
        return _git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("NIGHTSHIFT_COMMIT") or None


def _git(*arguments: str) -> str:
    folder = Path(__file__).parent
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.strip()


def _machine() -> dict[str, object]:
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
