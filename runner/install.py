"""Makes `.venv` from the pinned requirements, once for each change of them; standard library only.

python3 runner/install.py [--dev | --production | --bench] [--] [arguments for the environment's python …]
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
RUNTIME = ("requirements.txt", "requirements-demo.txt")
DEVELOPMENT = (*RUNTIME, "requirements-dev.txt")
PRODUCTION = (*DEVELOPMENT, "requirements-production.txt")
BENCHMARKS = (*DEVELOPMENT, "requirements-bench.txt")
SECONDS = "NIGHTSHIFT_INSTALL_SECONDS"
_OLDEST, _NEWEST = (3, 11), (3, 13)
_TELL_EVERY = 5.0


class InstallError(Exception):
    """A stage failed; told in one line."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="install.py", description="Make the environment, then run its python.")
    more = parser.add_mutually_exclusive_group()
    more.add_argument("--dev", action="store_true", help="also what the tests need")
    more.add_argument("--production", action="store_true", help="an environment apart, with production's services too")
    more.add_argument("--bench", action="store_true", help="an environment apart, with what others made")
    parser.add_argument("then", nargs=argparse.REMAINDER, help="arguments for the environment's python")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    try:
        python = _wanted(options)
    except InstallError as error:
        print(f"install: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("install: interrupted; the next start goes on from here", file=sys.stderr)
        return 130
    then = [word for word in options.then if word != "--"] if options.then[:1] == ["--"] else options.then
    if then:
        environment = {**os.environ, SECONDS: f"{time.monotonic() - began:.1f}"}
        os.execve(python, [str(python), *then], environment)
    return 0


def _wanted(options: argparse.Namespace) -> Path:
    # Airflow finds providers by itself: production's must not be where everything else is run and tested.
    if options.production:
        return ensure(CHECKOUT, PRODUCTION, ".venv-production")
    if options.bench:
        return ensure(CHECKOUT, BENCHMARKS, ".venv-bench")
    return ensure(CHECKOUT, DEVELOPMENT if options.dev else RUNTIME)


def ensure(checkout: Path, files: tuple[str, ...], name: str = ".venv") -> Path:
    """The python of the environment `name`, with at least `files` installed; does nothing when they are."""
    _check_version()
    venv = checkout / name
    python, stamp = venv / "bin" / "python", venv / "nightshift-stamp"
    wanted = fingerprint(checkout, files)
    if _runs(python) and wanted in _stamps(stamp):
        return python
    _make_venv(venv, python)
    stamp.unlink(missing_ok=True)
    try:
        _install(checkout, python, files)
    except InstallError as error:
        # A half-written package can stop pip for ever; from nothing it works or the trouble is elsewhere.
        print(f"environment: {error}; trying once more from nothing", flush=True)
        shutil.rmtree(venv)
        _make_venv(venv, python)
        _install(checkout, python, files)
    # With the development files the runtime is there too.
    done = {fingerprint(checkout, files), fingerprint(checkout, RUNTIME)}
    stamp.write_text("\n".join(sorted(done)) + "\n")
    return python


def fingerprint(checkout: Path, files: tuple[str, ...]) -> str:
    """Changes when a requirement, the project's metadata, the Python in use or the checkout's place does."""
    digest = hashlib.sha256(f"{checkout}\n{sys.version_info[:2]}\n{files}".encode())
    for name in (*files, "pyproject.toml"):
        digest.update((checkout / name).read_bytes())
    return digest.hexdigest()


def _check_version() -> None:
    version = sys.version_info[:2]
    if not _OLDEST <= version <= _NEWEST:
        raise InstallError(f"python: received {version[0]}.{version[1]}, expected 3.11 to 3.13")


def _stamps(stamp: Path) -> set[str]:
    try:
        return set(stamp.read_text().split())
    except (OSError, UnicodeDecodeError):
        return set()


def _make_venv(venv: Path, python: Path) -> None:
    """A new environment, unless the one there works and belongs to this Python."""
    if _runs(python) and _has_pip(python):
        return
    if venv.exists():
        print("environment: the one there is broken or another Python's; making it again", flush=True)
        shutil.rmtree(venv)
    _stage("environment: made", [sys.executable, "-m", "venv", str(venv)])


def _runs(python: Path) -> bool:
    """Whether that python starts and is of our version."""
    test = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    return _succeeds([str(python), "-c", test])


def _has_pip(python: Path) -> bool:
    return _succeeds([str(python), "-m", "pip", "--version"])


def _succeeds(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _install(checkout: Path, python: Path, files: tuple[str, ...]) -> None:
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    wanted = [word for name in files for word in ("-r", str(checkout / name))]
    _stage("packages: installed", [*pip, *wanted])
    _stage("nightshift: installed", [*pip, "--no-deps", "--no-build-isolation", "-e", str(checkout)])


def _stage(what: str, command: list[str]) -> None:
    """Run a command; tell how far it is every few seconds, and what went wrong if it fails."""
    began, lines = time.monotonic(), []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        teller = _Teller(what, began)
        try:
            for line in process.stdout or ():
                lines.append(line.rstrip())
                teller.saw(line)
        finally:
            teller.stop()
            if process.poll() is None and sys.exc_info()[0] is not None:
                process.terminate()
    if process.returncode:
        raise InstallError(f"{what.partition(':')[0]} failed: {_reason(lines)}")
    print(f"{what} in {time.monotonic() - began:.0f} s", flush=True)


class _Teller:
    """Says every few seconds how many packages pip has collected, whether or not pip says anything."""

    def __init__(self, what: str, began: float) -> None:
        self.subject, self.began = what.partition(":")[0], began
        self.collected, self.note = 0, ""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)
        self._thread.start()

    def saw(self, line: str) -> None:
        words = line.split()
        if line.startswith(("Collecting", "Processing", "Requirement already satisfied")):
            self.collected += 1
        elif line.startswith("Installing"):
            self.note = f", {' '.join(words[:3]).lower().rstrip(':')} {len(words) - 3 or ''}".rstrip()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _tell(self) -> None:
        while not self._stopped.wait(_TELL_EVERY):
            collected = f"{self.collected} collected{self.note}, " if self.collected else ""
            print(f"{self.subject}: {collected}{time.monotonic() - self.began:.0f} s so far", flush=True)


def _reason(lines: list[str]) -> str:
    """The line of pip's output that says most."""
    return next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else "no output")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
