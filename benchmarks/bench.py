"""Every figure of docs/benchmarks.md, measured on this machine: `make bench`, or ARGS="ingest growth" for some of them.

Each part is a script of its own that can be run alone; the page shows what it printed, on which machine and when. A
part that is not run again stays as it was.
"""

import argparse
import platform
import subprocess
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from training.provenance import environment

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Written by `make bench`; what stands side by side was measured side by side, in one run, on the machine that is named
with it. Ratios say more than seconds: other machines, other seconds.
"""
# By the script's name: its arguments, what it answers.
PARTS: dict[str, tuple[list[str], str]] = {
    "features": ([], "Training on features beside a plain Keras script"),
    "extraction": ([], "Computing features beside Keras's `predict` and the machine's peak"),
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
    failed = [name for name in parser.parse_args().parts or list(PARTS) if not run(name)]
    if failed:
        print(f"failed, and left on the page as they were: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def run(name: str) -> bool:
    """Show what the script prints as it comes and, if it succeeds, put it on the page."""
    print(f"── {name}", flush=True)
    command, lines = [sys.executable, str(HERE / f"{name}.py"), *PARTS[name][0]], list[str]()
    begun = time.monotonic()
    with subprocess.Popen(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line)
    print(f"   ({time.monotonic() - begun:.0f} s)", flush=True)
    if process.returncode == 0:
        PAGE.write_text(with_section(PAGE.read_text(), section(name, lines)))
        print(f"   written: {PAGE}", flush=True)
    return process.returncode == 0


def section(name: str, printed: Iterable[str]) -> str:
    words, title = PARTS[name]
    command = f"[`{' '.join([f'benchmarks/{name}.py', *words])}`](../benchmarks/{name}.py)"
    shown = [f"    {line}".rstrip() for line in printed]
    return "\n".join([f"## {title}", "", f"{command}, measured on {machine()}:", "", *shown, ""])


def machine() -> str:
    found, day = environment(), datetime.now(UTC)
    memory, python = found["memory_bytes"] / 2**30, platform.python_version()
    return f"{found['processor']}, {found['threads']} threads, {memory:.0f} GiB, Python {python}, {day:%Y-%m-%d}"


def with_section(page: str, new: str) -> str:
    """The page with this section in the place of the one of its title, all in the order of `PARTS`."""
    found = {heading(text): text for text in [*(f"## {rest}" for rest in page.split("\n## ")[1:]), new]}
    return "\n".join([HEAD, *(found[title].strip("\n") + "\n" for _, title in PARTS.values() if title in found)])


def heading(text: str) -> str:
    return text.partition("\n")[0].removeprefix("## ")


if __name__ == "__main__":
    sys.exit(main())
