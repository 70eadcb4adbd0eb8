"""The software bill of materials of what production installs: CycloneDX JSON, valid by its schema.

    python security/sbom.py [--to build/sbom.json]

From the lock files alone, so that it is the same on every machine.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements.txt", "requirements-production.txt")
# What docker/Dockerfile builds on.
_IMAGE = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64"}
_IMAGE |= {"python_version": "3.11", "python_full_version": "3.11.2", "implementation_name": "cpython"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=ROOT / "build" / "sbom.json")
    options = parser.parse_args()
    options.to.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([*_tool(), "--output-file", str(options.to)], input=pins(), text=True, check=False)
    if done.returncode == 0:
        print(f"{options.to}: {len(pins().splitlines())} packages")
    return done.returncode


def pins() -> str:
    """Every package that the image gets, with its version, once."""
    lines = [line for name in LOCKS for line in (ROOT / name).read_text().splitlines()]
    found = [
        Requirement(line.partition(" #")[0]) for line in lines if line.strip() and not line.strip().startswith("#")
    ]
    here = [pin for pin in found if pin.marker is None or pin.marker.evaluate(_IMAGE)]
    return "".join(dict.fromkeys(f"{pin.name}{pin.specifier}\n" for pin in here))


def _tool() -> list[str]:
    module = [sys.executable, "-m", "cyclonedx_py", "requirements", "-"]
    return [
        *module,
        "--pyproject",
        str(ROOT / "pyproject.toml"),
        "--output-format",
        "JSON",
        "--output-reproducible",
        "--validate",
    ]


if __name__ == "__main__":
    sys.exit(main())
