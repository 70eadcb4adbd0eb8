"""Where and when a run happened: the one file in which two equal runs differ."""

import os
import platform
import time
from datetime import UTC, datetime
from importlib import metadata

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
