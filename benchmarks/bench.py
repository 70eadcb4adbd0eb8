"""Every figure of docs/benchmarks.md, measured on this machine: `make bench`, or ARGS="ingest growth" for some of them.

Each part is a script of its own that can be run alone; what they print is what the page shows.
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
# By the script's name: its arguments, what it answers.
PARTS: dict[str, tuple[list[str], str]] = {
    "features": (
        [],
        "Training on features beside a plain Keras script; extraction beside `model.predict` and the machine's peak",
    ),
    "second_night": ([], "A second night with 1 % new images"),
    "precise_bn": ([], "Recalibration beside fvcore's, on PyTorch"),
    "training_step": ([], "A training step, and what bfloat16 brings"),
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
    printed = {name: run(name) for name in wanted}
    if failed := [name for name, lines in printed.items() if lines is None]:
        print(f"failed: {', '.join(failed)}; the page stays as it was", file=sys.stderr)
        return 1
    if set(wanted) == set(PARTS):
        PAGE.write_text("\n".join(page({name: lines or [] for name, lines in printed.items()})) + "\n")
        print(f"written: {PAGE}")
    return 0


def run(name: str) -> list[str] | None:
    """What the script prints, shown as it comes; None when it fails."""
    print(f"── {name}", flush=True)
    command, lines = [sys.executable, str(HERE / f"{name}.py"), *PARTS[name][0]], list[str]()
    begun = time.monotonic()
    with subprocess.Popen(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line.rstrip())
    print(f"   ({time.monotonic() - begun:.0f} s)", flush=True)
    return None if process.returncode else lines


def page(printed: dict[str, list[str]]) -> Iterator[str]:
    machine = environment()
    yield "# Benchmarks"
    yield ""
    yield "Written by `make bench`; what stands side by side was measured side by side, in one run, on one machine:"
    memory, python = machine["memory_bytes"] / 2**30, platform.python_version()
    yield f"{machine['processor']}, {machine['threads']} threads, {memory:.0f} GiB, Python {python}, "
    yield f"{datetime.now(UTC):%Y-%m-%d}. Ratios say more than seconds: other machines, other seconds."
    for name, lines in printed.items():
        arguments = " ".join(["", *PARTS[name][0]])
        yield from ("", f"## {PARTS[name][1]}", "", f"[`benchmarks/{name}.py{arguments}`](../benchmarks/{name}.py)", "")
        yield from (f"    {line}".rstrip() for line in lines)


if __name__ == "__main__":
    sys.exit(main())
