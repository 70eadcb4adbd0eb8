"""Passwords, keys and tokens in the files that are committed, but those that were looked at and are none.

    python security/find_secrets.py [files]

detect-secrets finds what looks like one; security/allowed_secrets.yaml lists what only looks so, each with its reason.
Exit codes: 0 nothing that is not listed; 1 something, or an entry that nothing matches any more.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from detect_secrets import SecretsCollection
from detect_secrets.settings import default_settings

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = ROOT / "security" / "allowed_secrets.yaml"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="instead of all that git knows")
    options = parser.parse_args(arguments)
    allowed = yaml.safe_load(ALLOWED.read_text())
    found = list(looked_through(options.files or _committed()))
    told = [*_unknown(found, allowed), *([] if options.files else _gone(found, allowed))]
    print(*told, sep="\n", end="\n" if told else "")
    return 1 if told else 0


def looked_through(files: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The `file`, `type`, `line` and `hash` (SHA-1) of everything that looks like one."""
    with default_settings():
        found = SecretsCollection()
        for file in files:
            found.scan_file(file)
    for file, secret in found:
        yield {"file": file, "type": secret.type, "hash": secret.secret_hash, "line": secret.line_number}


def _unknown(found: Iterable[dict[str, Any]], allowed: Iterable[dict[str, Any]]) -> Iterator[str]:
    known = {_identity(entry) for entry in allowed if entry["reason"]}
    for one in found:
        if _identity(one) not in known:
            expected = f"none; if it is none, list it in {ALLOWED.relative_to(ROOT)} with hash {one['hash']}"
            yield f"{one['file']}:{one['line']}: received what looks like a secret ({one['type']}), expected {expected}"


def _gone(found: Iterable[dict[str, Any]], allowed: Iterable[dict[str, Any]]) -> Iterator[str]:
    there = {_identity(one) for one in found}
    for entry in allowed:
        if _identity(entry) not in there:
            name = ALLOWED.relative_to(ROOT)
            yield f"{name}: received {entry['hash']}, expected none: {entry['file']} has it no more"


def _identity(entry: dict[str, Any]) -> tuple[str, str, str]:
    return entry["file"], entry["type"], entry["hash"]


def _committed() -> list[str]:
    """Files that git knows, but the list of hashes itself; of a checkout without git none."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    others = set(listed.stdout.split("\0")) - {"", str(ALLOWED.relative_to(ROOT))}
    return sorted(file for file in others if not file.endswith(".png"))


if __name__ == "__main__":
    sys.exit(main())
