"""Every figure of docs/benchmarks.md, measured on this machine: `make bench`, or ARGS="ingest growth" for some of them.

Each part is a script of its own that can be run alone; what they print is what the page shows, and what it last printed
where a part is not run again.
"""

import argparse
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from training.provenance import environment

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
PRINTED = HERE.parent / "build" / "benchmarks"
# By the script's name: its arguments, what it answers.
PARTS: dict[str, tuple[list[str], str]] = {
    "features": (
        [],
        "Training on features beside a plain Keras script; extraction beside `model.predict` and the machine's peak",
    ),
    "engines": ([], "Features by other engines, and in bfloat16"),
    "second_night": ([], "A second night with 1 % new images"),
    "precise_bn": ([], "Recalibration beside fvcore's, on PyTorch"),
    "training_step": (["--steps", "10", "--repeats", "1"], "A training step, and what bfloat16 brings"),
    "augmentation": ([], "The input pipeline beside training"),
    "ingest": (["--repeats", "5"], "Reading images beside bare decoding"),
    "validation": ([], "Validating a manifest of a million rows, beside pandera"),
    "airflow_share": ([], "What Airflow takes of a night"),
    "growth": ([], "Memory and time as the data grow"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="part", help=f"some of {', '.join(PARTS)}")
    wanted = parser.parse_args().parts or list(PARTS)
    if failed := [name for name in wanted if not run(name)]:
        print(f"failed: {', '.join(failed)}; the page stays as it was", file=sys.stderr)
        return 1
    PAGE.write_text("\n".join(page()) + "\n")
    print(f"written: {PAGE}")
    return 0


def run(name: str) -> bool:
    """Keep what the script prints, shown as it comes; whether it succeeded."""
    print(f"── {name}", flush=True)
    command, lines = [sys.executable, str(HERE / f"{name}.py"), *PARTS[name][0]], list[str]()
    begun = time.monotonic()
    with subprocess.Popen(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line)
    print(f"   ({time.monotonic() - begun:.0f} s)", flush=True)
    if process.returncode == 0:
        PRINTED.mkdir(parents=True, exist_ok=True)
        (PRINTED / f"{name}.txt").write_text("".join(lines))
    return process.returncode == 0


def page() -> Iterator[str]:
    machine = environment()
    yield "# Benchmarks"
    yield ""
    yield "Written by `make bench`; what stands side by side was measured side by side, in one run, on one machine:"
    memory, python = machine["memory_bytes"] / 2**30, platform.python_version()
    yield f"{machine['processor']}, {machine['threads']} threads, {memory:.0f} GiB, Python {python}, "
    yield f"{datetime.now(UTC):%Y-%m-%d}. Ratios say more than seconds: other machines, other seconds."
    for name, (words, title) in PARTS.items():
        arguments = " ".join(["", *words])
        yield from ("", f"## {title}", "", f"[`benchmarks/{name}.py{arguments}`](../benchmarks/{name}.py)", "")
        yield from (f"    {line}".rstrip() for line in printed(name))


def printed(name: str) -> list[str]:
    """What the part last printed on this machine."""
    file = PRINTED / f"{name}.txt"
    return file.read_text().splitlines() if file.exists() else ["not measured here yet"]


if __name__ == "__main__":
    sys.exit(main())
