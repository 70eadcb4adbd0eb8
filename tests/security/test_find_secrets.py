"""The look for secrets finds planted ones, and passes what is committed."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

# Put together here, so that this file holds none.
PLANTED = {
    "AWS Access Key": "key = 'AKIA" + "IOSFODNN7EXAMPLF'",
    "Private Key": "-----BEGIN " + "RSA PRIVATE KEY-----",
    "Basic Auth Credentials": "url = 'postgresql://airflow:" + "correcthorse@db/airflow'",
    "Slack Token": "token = 'xoxb-" + "123456789012-123456789012-abcdefghijklmnopqrstuvwx'",
}


def find(*files):
    command = [sys.executable, "security/find_secrets.py", *map(str, files)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_secret_is_one_line_that_does_not_show_it(tmp_path, kind):
    path = tmp_path / "settings.py"
    path.write_text(f"# nothing\n{PLANTED[kind]}\n")
    done = find(path)
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if kind in line]
    assert line.startswith(f"{path}:2: received what looks like a secret")
    assert PLANTED[kind].split("'")[-2 if "'" in PLANTED[kind] else 0] not in done.stdout


def test_nothing_that_is_committed_holds_one():
    """`make test` asks the same first; here it is held that the list and the files agree."""
    done = find()
    assert (done.returncode, done.stdout) == (0, "")
