"""docker/: what can be held without a container engine or a network."""

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tomllib

import pytest
import yaml
from cryptography.fernet import Fernet

from tests.conftest import ROOT
from tests.docker.dockerfile import image_environment, of

DOCKER = ROOT / "docker"
COMPOSE = (DOCKER / "compose.yaml").read_text()
SERVICES = yaml.safe_load(COMPOSE)["services"]
OURS = {name: service for name, service in SERVICES.items() if name != "postgres"}
# A variable of the compose file and what follows its name, e.g. `:?…` or `:-…`.
VARIABLE = re.compile(r"\$\{(\w+)([^}]*)")
# Parses commands and looks up options as Airflow itself does.
ASK_AIRFLOW = """
import json, sys
from airflow.cli.cli_parser import get_parser
from airflow.configuration import conf
commands, options = json.load(sys.stdin)
for words in commands:
    get_parser().parse_args(words)
unknown = []
for option in options:
    _, section, key = option.lower().split("__")
    if key not in conf.configuration_description.get(section, {"options": {}})["options"]:
        unknown.append(option)
print(unknown)
"""


def written_secrets(folder):
    shutil.copy(DOCKER / "secrets.sh", folder)
    subprocess.run(["sh", folder / "secrets.sh"], check=True, capture_output=True)
    return dict(line.split("=", 1) for line in (folder / ".env").read_text().splitlines())


# --- compose.yaml


def test_the_parts_of_airflow_are_all_there():
    assert set(SERVICES) == {"postgres", "init", "api-server", "scheduler", "dag-processor", "triggerer"}
    assert all("healthcheck" in service for name, service in SERVICES.items() if name != "init")
    assert {name: service["restart"] for name, service in SERVICES.items() if name == "init"} == {"init": "no"}
    assert all(service["restart"] == "unless-stopped" for name, service in SERVICES.items() if name != "init")


def test_nothing_starts_before_what_it_needs():
    for name, service in OURS.items():
        needs = {other: how["condition"] for other, how in service["depends_on"].items()}
        assert needs.keys() <= SERVICES.keys()
        assert all("healthcheck" in SERVICES[other] for other, how in needs.items() if how == "service_healthy")
        if name != "init":
            assert needs["init"] == "service_completed_successfully"
    assert SERVICES["init"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    # A task reports to the API server, so the scheduler must not start one before it is there.
    assert SERVICES["scheduler"]["depends_on"]["api-server"]["condition"] == "service_healthy"


def test_every_required_variable_is_written_by_the_script(tmp_path):
    variables = VARIABLE.findall(COMPOSE)
    required = {name for name, rest in variables if rest.startswith(":?")}
    optional = {name for name, rest in variables if not rest.startswith(":?")}
    assert required == written_secrets(tmp_path).keys()
    assert all(rest.startswith((":?", ":-")) for _, rest in variables), "a variable that may silently be empty"
    readme = (DOCKER / "README.md").read_text()
    assert [name for name in optional if f"`{name}`" not in readme] == []


def test_no_secret_is_written_in_the_file():
    secret = re.compile(r"(PASSWORD|SECRET|SECRET_KEY|FERNET_KEY)$")
    for service in SERVICES.values():
        for name, value in service["environment"].items():
            if secret.search(name):
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), name
            assert not re.search(r"://[^/@]*:[^$@/]+@", str(value)), f"{name} holds a literal password"


def test_images_are_pinned():
    images = [service["image"] for service in SERVICES.values()]
    assert all(re.search(r":\d+\.\d+(\.\d+)?(-[a-z-]+)?$", image) for image in images), images
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {service["image"] for service in OURS.values()} == {f"nightshift:{version}"}


def test_pages_are_reachable_from_this_machine_only():
    assert [port for service in SERVICES.values() for port in service.get("ports", [])] == [
        "127.0.0.1:${NIGHTSHIFT_PORT:-8080}:8080"
    ]


def single(command: list[str]) -> list[list[str]]:
    """The commands that a shell is given as one line, or the only one."""
    return [shlex.split(part) for part in command[2].split("&&")] if command[:2] == ["sh", "-c"] else [command]


def test_airflow_understands_every_command_and_setting(tmp_path):
    commands = [service["command"] for service in OURS.values()] + [json.loads(words) for words in of("CMD")]
    commands += [service["healthcheck"]["test"][1:] for service in OURS.values() if "healthcheck" in service]
    airflow = [words[1:] for command in commands for words in single(command) if words[0] == "airflow"]
    assert len(airflow) == 10  # five services, of which one has two, the image's own, three health checks
    names = image_environment().keys() | {name for service in OURS.values() for name in service["environment"]}
    answer = subprocess.run(
        [sys.executable, "-c", ASK_AIRFLOW],
        input=json.dumps([airflow, sorted(name for name in names if name.startswith("AIRFLOW__"))]),
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines()[-1] == "[]"


def test_the_api_servers_check_is_python():
    *_, flag, code = SERVICES["api-server"]["healthcheck"]["test"]
    assert flag == "-c"
    compile(code, "healthcheck", "exec")


# --- secrets.sh


def test_secrets_are_written_once_for_the_owner_only(tmp_path):
    secrets = written_secrets(tmp_path)
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    assert written_secrets(tmp_path) == secrets
    assert {path.name for path in tmp_path.iterdir()} == {".env", "secrets.sh"}


def test_secrets_are_good_ones(tmp_path):
    (tmp_path / "other").mkdir()
    secrets, others = written_secrets(tmp_path), written_secrets(tmp_path / "other")
    assert len({*secrets.values(), *others.values()}) == 8
    Fernet(secrets["AIRFLOW_FERNET_KEY"])
    # Safe in a database URL; and HMAC-SHA512 wants 64 bytes.
    assert all(re.fullmatch(r"[\w-]{64}", value) for name, value in secrets.items() if name != "AIRFLOW_FERNET_KEY")


# --- volumes and the image; see test_image.py


@pytest.mark.parametrize("name", sorted(OURS))
def test_volumes_land_where_the_image_made_room(name):
    made = {word for rest in of("RUN") for word in rest.split() if word.startswith("/opt/")}
    targets = {re.search(r":(/opt/[^:]+)", volume)[1] for volume in OURS[name]["volumes"]}
    assert targets <= made
    environment = image_environment()
    assert environment["AIRFLOW__CORE__DAGS_FOLDER"] == f"{of('WORKDIR')[-1]}/dags"
    assert environment["AIRFLOW__CORE__PLUGINS_FOLDER"] == f"{of('WORKDIR')[-1]}/plugins"


def test_only_the_api_server_sees_the_password():
    password = SERVICES["api-server"]["environment"]["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]
    folder = password.rpartition("/")[0]
    seen = [name for name, service in OURS.items() if any(folder in volume for volume in service["volumes"])]
    assert seen == ["api-server"]


# --- requirements-postgres


def pins(name):
    return dict(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / name).read_text(), flags=re.MULTILINE))


def test_the_drivers_are_pinned_and_agree_with_the_rest():
    drivers, rest = pins("requirements-postgres.txt"), pins("requirements.txt")
    assert set((ROOT / "requirements-postgres.in").read_text().split()) <= drivers.keys()
    assert {name: rest[name] for name in drivers.keys() & rest.keys()} == {
        name: drivers[name] for name in drivers.keys() & rest.keys()
    }
    # What the database's URL, and the one Airflow derives from it, name.
    assert {"psycopg2-binary", "asyncpg"} <= drivers.keys()
    assert "postgresql+psycopg2://" in SERVICES["init"]["environment"]["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
