"""What is asked of this machine: PostgreSQL under a user of its own, and file systems that cannot be written."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

# A root file system that cannot be written, save for the folders before `--`, and nobody who becomes more than he is.
_CONTAINED = """
mount --make-rprivate /
while [ "$1" != -- ]; do mount --bind "$1" "$1"; shift; done
mount -o remount,bind,ro /
shift
exec setpriv --no-new-privs "$@"
"""


def contained(writable: list[Path], command: list[str]) -> list[str]:
    """The command where nothing but the folders `writable` can be written."""
    return ["unshare", "--mount", "sh", "-euc", _CONTAINED, "sh", *map(str, writable), "--", *command]


@cache
def can_contain() -> bool:
    """Whether we may do that here: it takes a root user with all that belongs to one."""
    return subprocess.run(contained([], ["true"]), capture_output=True, check=False).returncode == 0


def postgres_programs() -> Path:
    """Where Debian puts the newest PostgreSQL."""
    return max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))


def as_postgres(command: list[str]) -> list[str]:
    """PostgreSQL refuses to run as root."""
    become = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
    return [*become, *command] if os.geteuid() == 0 else command


def make_database(folder: Path, told: Mapping[str, str]) -> None:
    """A new database as the image's entry point makes it at its first start; `told` is the service's environment."""
    password = folder.with_name("password")
    password.write_text(told["POSTGRES_PASSWORD"])
    folder.mkdir(mode=0o700)
    for path in (password, folder):
        if os.geteuid() == 0:
            shutil.chown(path, "postgres", "postgres")
    rules = ["--auth-host=scram-sha-256", "--auth-local=reject", f"--pwfile={password}", "--no-sync"]
    _run(["initdb", *rules, "-D", str(folder), "-U", told["POSTGRES_USER"]], told)
    _run(["postgres", "--single", "-D", str(folder), "postgres"], told, f"CREATE DATABASE {told['POSTGRES_DB']}\n")
    password.unlink()


def _run(command: list[str], environment: Mapping[str, str], said: str = "") -> None:
    done = subprocess.run(
        as_postgres(command), env=environment, cwd="/", input=said, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
