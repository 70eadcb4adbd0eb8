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
from tests.production import compose

DOCKER = ROOT / "docker"
COMPOSE = (DOCKER / "compose.yaml").read_text()
SERVICES = yaml.safe_load(COMPOSE)["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("nightshift")}
WORKERS = {"worker", "worker-training"}
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
    return dict(re.findall(r"^(\w+)=(.*)$", (folder / ".env").read_text(), re.MULTILINE))


# --- compose.yaml


def test_the_parts_of_airflow_are_all_there():
    assert set(OURS) == {"init", "api-server", "scheduler", "dag-processor", "triggerer", *WORKERS}
    assert set(SERVICES) == {*OURS, "postgres", "redis", "s3"}
    assert all("healthcheck" in service for name, service in SERVICES.items() if name != "init")
    assert {name: service["restart"] for name, service in SERVICES.items() if name == "init"} == {"init": "no"}
    assert all(service["restart"] == "unless-stopped" for name, service in SERVICES.items() if name != "init")


def test_nothing_starts_before_what_it_needs():
    for name, service in OURS.items():
        needs = {other: how["condition"] for other, how in service["depends_on"].items()}
        assert needs.keys() <= SERVICES.keys()
        assert all(how["required"] is False for other, how in service["depends_on"].items() if other == "s3")
        assert all("healthcheck" in SERVICES[other] for other, how in needs.items() if how == "service_healthy")
        if name != "init":
            assert needs["init"] == "service_completed_successfully"
    assert SERVICES["init"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    # A task goes by Redis and reports to the API server, so none must start before they are there.
    for needs in (SERVICES[name]["depends_on"] for name in ("scheduler", *WORKERS)):
        assert {needs[other]["condition"] for other in ("redis", "api-server")} == {"service_healthy"}


def test_every_required_variable_is_written_by_the_script(tmp_path):
    variables = VARIABLE.findall(COMPOSE)
    required = {name for name, rest in variables if rest.startswith(":?")}
    optional = {name for name, rest in variables if not rest.startswith(":?")}
    assert required == written_secrets(tmp_path).keys() - {"COMPOSE_PROFILES"}
    assert written_secrets(tmp_path)["COMPOSE_PROFILES"] in SERVICES["s3"]["profiles"]
    assert all(rest.startswith((":?", ":-")) for _, rest in variables), "a variable that may silently be empty"
    readme = (DOCKER / "README.md").read_text()
    assert [name for name in optional if f"`{name}`" not in readme] == []


def test_no_secret_is_written_in_the_file():
    secret = re.compile(r"(PASSWORD|SECRET|SECRET_KEY|FERNET_KEY|ACCESS_KEY|ACCESS_KEY_ID)$")
    for service in SERVICES.values():
        for name, value in service["environment"].items():
            if secret.search(name):
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), name
            assert not re.search(r"://[^/@]*:[^$@/]+@", str(value)), f"{name} holds a literal password"


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_without_secrets_no_service_can_be_started(name, tmp_path):
    told = compose.service(name, written_secrets(tmp_path))
    assert "${" not in str(told)
    with pytest.raises(KeyError, match="run docker/secrets"):
        compose.service(name, {})


def test_images_are_pinned():
    images = [service["image"] for service in SERVICES.values()]
    assert all(re.search(r":v?\d+\.\d+(\.\d+)?(-[a-z-]+)?$", image) for image in images), images
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {service["image"] for service in OURS.values()} == {f"nightshift:{version}"}


def test_pages_are_reachable_from_this_machine_only():
    assert [port for service in SERVICES.values() for port in service.get("ports", [])] == [
        "127.0.0.1:${NIGHTSHIFT_PORT:-8080}:8080"
    ]


def test_nobody_can_write_or_become_more_than_he_is():
    for name, service in SERVICES.items():
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"] and "/tmp" in service["tmpfs"], name
        assert "cap_add" not in service and "privileged" not in service, name


def test_workers_know_no_secret_of_the_servers():
    secret = re.compile(r"POSTGRES_PASSWORD|FERNET_KEY|JWT_SECRET|API_SECRET_KEY|ADMIN_PASSWORD")
    told = {name: set(secret.findall(str(service["environment"]))) for name, service in OURS.items()}
    assert {name for name, names in told.items() if not names} == WORKERS
    assert {name for name, names in told.items() if "ADMIN_PASSWORD" in names} == {"init"}


def test_a_lost_workers_queues_are_served_by_the_other():
    assert {"--queues=training,default", "--concurrency=1"} <= set(SERVICES["worker-training"]["command"])
    assert "--queues=${NIGHTSHIFT_WORKER_QUEUES:-default,training}" in SERVICES["worker"]["command"]


def test_a_message_outlives_the_longest_night():
    """The settings that keep a training of many hours from being handed out twice, or ended by a short outage."""
    told = {name: value for name, value in SERVICES["scheduler"]["environment"].items() if str(value).isdigit()}
    lost = int(told["AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT"])
    waits = int(told["AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT"])
    assert int(told["AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT"]) >= 48 * 3600 > waits
    assert int(told["AIRFLOW__EXECUTION_API__JWT_EXPIRATION_TIME"]) * 0.2 >= lost
    # Each failed heartbeat is tried so often, and waits for at least a second between.
    tries = int(told["AIRFLOW__WORKERS__EXECUTION_API_RETRIES"]) - 1
    assert int(told["AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS"]) * tries >= lost
    assert SERVICES["worker"]["environment"].items() <= SERVICES["scheduler"]["environment"].items()


def of_init() -> list[list[str]]:
    text = (DOCKER / "init.sh").read_text()
    return [shlex.split(words) for words in re.findall(r"(?:^ *|\|\| )(airflow [^|>&\n]+)", text, re.MULTILINE)]


def test_airflow_understands_every_command_and_setting(tmp_path):
    commands = [service["command"] for service in OURS.values()] + [json.loads(words) for words in of("CMD")]
    commands += [service["healthcheck"]["test"][1:] for service in OURS.values() if "healthcheck" in service]
    airflow = [words[1:] for words in [*commands, *of_init()] if words[0] == "airflow"]
    # Six services, the image's own, three health checks, and four of init.sh. What only providers understand, which are
    # not here, tests/production runs.
    assert len(airflow) == 14
    airflow = [words for words in airflow if words[0] not in ("celery", "users")]
    names = image_environment().keys() | {name for service in OURS.values() for name in service["environment"]}
    names = {name for name in names if not name.startswith("AIRFLOW__CELERY")}
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
    assert len({*secrets.values(), *others.values()}) == 2 * 9 + 1
    Fernet(secrets["AIRFLOW_FERNET_KEY"])
    # Safe in a URL; and HMAC-SHA512 wants 64 bytes.
    lengths = {"AIRFLOW_FERNET_KEY": 44, "AIRFLOW_ADMIN_PASSWORD": 24, "S3_ACCESS_KEY": 20, "COMPOSE_PROFILES": 2}
    assert all(re.fullmatch(r"[\w=-]+", value) for value in secrets.values())
    assert {name: len(value) for name, value in secrets.items()} == dict.fromkeys(secrets, 64) | lengths


def test_the_first_password_is_shown_once(tmp_path):
    command = ["sh", shutil.copy(DOCKER / "secrets.sh", tmp_path)]
    told = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(2)]
    password = written_secrets(tmp_path)["AIRFLOW_ADMIN_PASSWORD"]
    assert [password in text for text in told] == [True, False]


# --- volumes and the image; see test_image.py


@pytest.mark.parametrize("name", sorted(OURS))
def test_volumes_land_where_the_image_made_room(name):
    made = {word for rest in of("RUN") for word in rest.split() if word.startswith("/opt/")}
    targets = {volume.split(":")[1] for volume in OURS[name]["volumes"] if re.match(r"\w", volume)}
    assert targets <= made
    environment = image_environment()
    assert environment["AIRFLOW__CORE__DAGS_FOLDER"] == f"{of('WORKDIR')[-1]}/dags"
    assert environment["AIRFLOW__CORE__PLUGINS_FOLDER"] == f"{of('WORKDIR')[-1]}/plugins"


# --- requirements-production


def pins(name):
    return dict(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / name).read_text(), flags=re.MULTILINE))


def test_what_production_adds_is_pinned_and_agrees_with_the_rest():
    more, rest = pins("requirements-production.txt"), pins("requirements.txt")
    shared = more.keys() & rest.keys()
    assert {name: rest[name] for name in shared} == {name: more[name] for name in shared}
    # What the database's URL, and the one Airflow derives from it, name; the executor, the users, the metrics.
    assert {"psycopg2-binary", "asyncpg", "redis", "statsd"} <= more.keys() - rest.keys()
    assert {f"apache-airflow-providers-{name}" for name in ("celery", "fab")} <= more.keys() - rest.keys()
    assert "postgresql+psycopg2://" in SERVICES["init"]["environment"]["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
