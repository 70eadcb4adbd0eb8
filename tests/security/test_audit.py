"""The audit as a process, asking a real server that knows of one vulnerability."""

import datetime
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import yaml

from runner.ports import free_port
from security.audit import FIELDS, LOCKS, wrong
from tests.conftest import ROOT

TODAY = datetime.date(2026, 6, 1)
VULNERABLE = {
    "id": "GHSA-aaaa-bbbb-cccc",
    "aliases": ["CVE-2026-1"],
    "summary": "Anybody may do anything.",
    "modified": "2026-01-01T00:00:00Z",
    "affected": [
        {
            "package": {"name": "leaky", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.2"}]}],
            "versions": ["1.1"],
        }
    ],
}
ENTRY = {
    "id": "CVE-2026-1",
    "package": "leaky",
    "reason": "only its colours are used",
    "reviewed_by": "ops",
    "reviewed": datetime.date(2026, 5, 1),
    "expires": datetime.date(2026, 7, 1),
}


@pytest.fixture
def osv():
    class Server(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found = {"vulns": [VULNERABLE]} if (asked["package"]["name"], asked["version"]) == ("leaky", "1.1") else {}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query"
    server.shutdown()
    server.server_close()


def audit(tmp_path, url, pins, allowed=(), *words):
    (tmp_path / "requirements.txt").write_text(pins)
    (tmp_path / "allowed.yaml").write_text(yaml.safe_dump(list(allowed)))
    command = [sys.executable, "security/audit.py", "--osv-url", url, "--today", str(TODAY), *words]
    command += ["--allowed", str(tmp_path / "allowed.yaml"), str(tmp_path / "requirements.txt")]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_what_is_known_is_one_line_and_fails(osv, tmp_path):
    done = audit(tmp_path, osv, "leaky==1.1\nsound==2.0\n")
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == "leaky 1.1: CVE-2026-1 (GHSA-aaaa-bbbb-cccc), fixed in 1.2"
    assert done.stdout.splitlines()[-1] == "audit: 2 packages, 1 vulnerabilities that are not allowed"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, 0),
        ({"id": "GHSA-aaaa-bbbb-cccc"}, 0),
        ({"id": "CVE-2026-2"}, 1),
        ({"package": "sound"}, 1),
        ({"expires": datetime.date(2026, 5, 31)}, 2),
        ({"expires": datetime.date(2027, 5, 31)}, 2),
        ({"reason": ""}, 2),
    ],
)
def test_only_what_was_looked_at_is_allowed_and_not_for_ever(osv, tmp_path, change, code):
    assert audit(tmp_path, osv, "leaky==1.1\n", [ENTRY | change]).returncode == code


def test_a_fixed_release_passes(osv, tmp_path):
    assert audit(tmp_path, osv, "leaky==1.2\n").returncode == 0


@pytest.mark.parametrize(("words", "code"), [((), 3), (("--lenient",), 0)])
def test_nobody_takes_silence_for_safety(tmp_path, words, code):
    done = audit(tmp_path, f"http://127.0.0.1:{free_port(8080)}/", "leaky==1.1\n", (), *words)
    assert done.returncode == code
    assert "could not be asked" in done.stderr and "0 vulnerabilities" not in done.stdout


def test_the_allow_list_is_whole():
    """On the day it was last reviewed: whether its time is over is for `make audit` to say."""
    allowed = yaml.safe_load((ROOT / "security" / "allowed_vulnerabilities.yaml").read_text())
    newest = max((entry["reviewed"] for entry in allowed if "reviewed" in entry), default=TODAY)
    assert list(wrong(allowed, newest)) == []
    assert next(wrong([{}], TODAY)).endswith(", ".join(FIELDS))


def test_every_lock_is_audited():
    assert sorted(LOCKS) == sorted(path.name for path in ROOT.glob("requirements*.txt"))
