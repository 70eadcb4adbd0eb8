"""Known vulnerabilities of everything that is pinned, but those that were looked at and found not to reach us.

    python security/audit.py [--lenient] [--allowed security/allowed_vulnerabilities.yaml] [files of requirements]

pip-audit asks OSV (https://osv.dev) about each pin. Exit codes: 0 nothing that is not allowed; 1 something, named in a
line each; 2 an allow-list that does not hold; 3 OSV could not be asked, which with --lenient is said and is 0.
"""

import argparse
import datetime
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
LOCKS = tuple(f"requirements{part}.txt" for part in ("", "-production", "-demo", "-dev", "-bench"))
FIELDS = ("id", "package", "reason", "reviewed_by", "reviewed", "expires")
NOT_ASKED = 3
# What is looked at once need not be right for ever.
_LONGEST = datetime.timedelta(days=180)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lenient", action="store_true", help="do not fail where OSV cannot be asked")
    parser.add_argument("--allowed", type=Path, default=ROOT / "security" / "allowed_vulnerabilities.yaml")
    parser.add_argument("--today", type=datetime.date.fromisoformat, default=datetime.datetime.now(datetime.UTC).date())
    parser.add_argument("--osv-url", help="another server that speaks OSV's API")
    parser.add_argument("files", nargs="*", type=Path, default=[ROOT / name for name in LOCKS])
    options = parser.parse_args(arguments)
    allowed = yaml.safe_load(options.allowed.read_text()) or []
    if mistakes := list(wrong(allowed, options.today)):
        print(*mistakes, sep="\n", file=sys.stderr)
        return 2
    audited = ask(options.files, options.osv_url)
    if audited is None:
        print("audit: OSV could not be asked, nothing is known of vulnerabilities", file=sys.stderr)
        return 0 if options.lenient else NOT_ASKED
    return _told(audited, allowed)


def wrong(allowed: Iterable[Mapping[str, Any]], today: datetime.date) -> Iterator[str]:
    """A line for each entry of the allow-list that lacks something, or whose time is over."""
    for entry in allowed:
        name = f"allowed {entry.get('id', '?')}"
        if missing := [field for field in FIELDS if not entry.get(field)]:
            yield f"{name}: received nothing for {', '.join(missing)}, expected all of {', '.join(FIELDS)}"
        elif entry["expires"] < today:
            yield f"{name}: received expires {entry['expires']}, expected {today} or later: look at it again"
        elif entry["expires"] - entry["reviewed"] > _LONGEST:
            expected = f"at most {_LONGEST.days} days after {entry['reviewed']}"
            yield f"{name}: received expires {entry['expires']}, expected {expected}"


def ask(files: Iterable[Path], osv_url: str | None) -> list[dict[str, Any]] | None:
    """Every pin, and its vulnerabilities, as pip-audit has them; None when it could not ask about all of them."""
    words = [word for file in files for word in ("--requirement", str(file))]
    words += ["--osv-url", osv_url] if osv_url else []
    fixed = [
        "--no-deps",
        "--disable-pip",
        "--vulnerability-service",
        "osv",
        "--format",
        "json",
        "--progress-spinner",
        "off",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", *fixed, *words], capture_output=True, text=True, check=False
    )
    try:
        pins: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(done.stderr.strip().rpartition("\n")[2], file=sys.stderr)
        return None
    return None if any("skip_reason" in pin for pin in pins) else pins


def found_in(pins: Iterable[Mapping[str, Any]], allowed: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A line for each vulnerability that is not allowed, by its own name or another."""
    known = {(entry["package"], entry["id"]) for entry in allowed}
    for pin in pins:
        for one in pin["vulns"]:
            if not any((pin["name"], name) in known for name in (one["id"], *one["aliases"])):
                remedy = f"fixed in {', '.join(one['fix_versions'])}" if one["fix_versions"] else "no release fixes it"
                yield f"{pin['name']} {pin['version']}: {one['id']} ({', '.join(one['aliases'])}), {remedy}"


def _told(pins: list[dict[str, Any]], allowed: list[dict[str, Any]]) -> int:
    found = sorted(set(found_in(pins, allowed)))
    print(*found, sep="\n", end="\n" if found else "")
    print(f"audit: {len({pin['name'] for pin in pins})} packages, {len(found)} vulnerabilities that are not allowed")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
