"""A process of its own on a full disk: ``python -m tests.limited LIMIT,… RUN STEP,… OPTION…``.

Tries each step with no file allowed beyond LIMIT bytes, one limit after another, then without; prints one line of JSON
for each try: the step, limit, exit code, what was told, and what became of the files that were there before.
"""

import contextlib
import hashlib
import io
import json
import resource
import sys
from pathlib import Path

from training.__main__ import main


def _tried(step: str, limit: int, run: Path, options: list[str]) -> dict:
    before, told = _files(run.parent), io.StringIO()
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit if limit >= 0 else hard, hard))
    try:
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
            exit_code = main([step, "--run", str(run), *options])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    after = _files(run.parent)
    changed = [name for name, digest in before.items() if after.get(name) != digest]
    unfinished = [name for name in after if ".unfinished-" in name]
    new = [name for name in after if name not in before]
    return {"step": step, "limit": limit, "exit_code": exit_code, "told": told.getvalue(), "changed": changed} | {
        "unfinished": unfinished,
        "new": new,
    }


def _files(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


if __name__ == "__main__":
    limits, run, steps, *options = sys.argv[1:]
    for step in steps.split(","):
        for limit in [*map(int, limits.split(",")), -1]:
            print(json.dumps(_tried(step, limit, Path(run), options)), flush=True)
