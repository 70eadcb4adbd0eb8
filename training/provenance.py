"""What a run was made from, where and when: the one file in which two equal runs differ."""

import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from training.processors import usable
from training.run_folder import CONFIG, Run, as_json
from training.store import NotFound, Store

PROVENANCE = "provenance.json"
# Says which commit it is where the code came without git, as into a container.
COMMIT = "NIGHTSHIFT_COMMIT"
CHANGED = "+changes"
_CODE = Path(__file__).parent
_PROCESSORS = Path("/proc/cpuinfo")
# The widest of these decide which kernels multiply; by the system's names.
_INSTRUCTIONS = {"amx_tile": "AMX", "avx512f": "AVX-512", "avx2": "AVX2"}


def record(run: Run, step: str, begun: float, devices: Sequence[str] = ()) -> None:
    """Add a finished step: when it began (seconds since the epoch), how long it took, in what environment, on what."""
    tree, here = read(run.store), environment()
    key = hashlib.sha256(as_json(here)).hexdigest()[:12]
    times = {
        "began": datetime.fromtimestamp(begun, UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - begun, 1),
        "host": platform.node(),
        "environment": key,
        **({"devices": list(devices)} if devices else {}),
    }
    steps = tree.get("steps", {}) | {step: times}
    origins = tree if step != "ingest" and "made_from" in tree else _origins(run)
    run.write_json(
        PROVENANCE,
        {
            **{name: origins[name] for name in ("config_sha256", "data_sha256", "made_from", "seeds")},
            "environments": _of_steps(tree.get("environments", {}) | {key: here}, steps),
            "steps": steps,
        },
    )


def read(store: Store) -> dict[str, Any]:
    """What a run's folder says of its making; empty where it says nothing that can be read."""
    try:
        return dict(json.loads(store.read(PROVENANCE)))
    except (NotFound, TypeError, ValueError):
        return {}


@cache
def environment() -> dict[str, Any]:
    """What besides settings and data may change a run's last bits: the code, every installed version, the machine."""
    return {
        "code_commit": code_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "threads": usable(),
        "memory_bytes": psutil.virtual_memory().total,
        "versions": _versions(),
    }


def code_commit() -> str | None:
    """The commit of this code, with "+changes" where the package's files are other than committed.

    Without git, or where the package is installed outside its repository, what NIGHTSHIFT_COMMIT says; else None.
    """
    try:
        # Asked first, since a package installed below another project's checkout would be given that one's commit.
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        return _git("rev-parse", "HEAD") + (CHANGED if _git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return os.environ.get(COMMIT) or None


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=_CODE, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.strip()


def _origins(run: Run) -> dict[str, Any]:
    from training import manifest, novelty

    data_sha256 = manifest.digest(manifest.from_parquet(run.store.read("manifest.parquet")))
    return {
        "config_sha256": run.digest(CONFIG),
        "data_sha256": data_sha256,
        "made_from": novelty.made_from(run.config, data_sha256),
        "seeds": {"seed": run.config.seed, "split.salt": run.config.split.salt},
    }


def _of_steps(environments: Mapping[str, Any], steps: Mapping[str, Any]) -> dict[str, Any]:
    """Those that some step was done in; one done again may have left its earlier one behind."""
    used = {times.get("environment") for times in steps.values()}
    return {key: facts for key, facts in environments.items() if key in used}


def _versions() -> dict[str, str]:
    """Of all that is installed, by name; what a broken installation leaves behind has none."""
    return dict(sorted((found.name.lower(), found.version) for found in metadata.distributions() if found.name))


def _processor() -> str:
    """Its name, and what tells apart those that clouds rent out under one name but that round otherwise."""
    lines = _PROCESSORS.read_text().partition("\n\n")[0].splitlines() if _PROCESSORS.exists() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = facts.get("model name") or platform.processor() or platform.machine()
    kind = [f"{word} {facts[key]}" for key, word in (("cpu family", "family"), ("model", "model")) if key in facts]
    there = facts.get("flags", "").split()
    widest = [shown for flag, shown in _INSTRUCTIONS.items() if flag in there][:1]
    return ", ".join([name, *kind, *widest])
