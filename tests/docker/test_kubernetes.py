"""docker/kubernetes and each task's pod: by the kubernetes client's models, and through Airflow's own code."""

import copy
import os
import pickle
import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from cryptography.fernet import Fernet
from kubernetes.client import ApiClient, V1Pod

from tests.conftest import ROOT
from tests.docker.dockerfile import of
from tests.docker.kubernetes_models import mistakes
from training.errors import ConfigError

FOLDER = ROOT / "docker" / "kubernetes"
TEMPLATE = yaml.safe_load((FOLDER / "pod_template.yaml").read_text())
VALUES = yaml.safe_load((FOLDER / "values.yaml").read_text())
COMPOSE = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
SERVERS = ("apiServer", "scheduler", "dagProcessor", "triggerer")
DATABASE = "postgresql+psycopg2://airflow:p%27w@db:5432/airflow"


@pytest.fixture(scope="module", autouse=True)
def airflow_home(tmp_path_factory):
    """Airflow's own home, and the plugins folder on the path, as Airflow puts it there."""
    os.environ.setdefault("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
    os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
    sys.path.append(str(ROOT / "plugins"))
    yield
    sys.path.remove(str(ROOT / "plugins"))


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setenv("NIGHTSHIFT_TRAIN_GPUS", "2")
    monkeypatch.setenv("NIGHTSHIFT_TRAIN_IMAGE", "nightshift:0.1.0-gpu")
    monkeypatch.setenv("NIGHTSHIFT_POD_MEMORY", "train=16Gi evaluate=6Gi")


def override(task):
    from nightshift_pods import pod_override

    return pod_override(task)


def as_yaml(pod):
    return ApiClient().sanitize_for_serialization(pod)


def resources(task):
    return as_yaml(override(task))["spec"]["containers"][0]["resources"]


def parsed(models=None):
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(models.parent if models else ROOT / "dags")
    assert not bag.import_errors
    return bag.dags["retrain_solar_cells"]


# --- the pod template


def test_the_template_is_a_pod():
    assert mistakes(TEMPLATE, "V1Pod") == []


def _without(*path):
    def change(pod):
        for step in path[:-1]:
            pod = pod[step]
        del pod[path[-1]]

    return change


def _with(value, *path):
    def change(pod):
        for step in path[:-1]:
            pod = pod[step]
        pod[path[-1]] = value

    return change


BASE = ("spec", "containers", 0)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_with(True, *BASE, "securityContext", "readOnlyRootFileSystem"), "readOnlyRootFileSystem: received a key"),
        (_with({}, "spec", "securityContexts"), ".spec.securityContexts: received a key that V1PodSpec does not have"),
        (_with("50000", "spec", "securityContext", "runAsUser"), "received '50000', expected int"),
        (_with(1, *BASE, "resources", "requests", "cpu"), "requests.cpu: received 1, expected str"),
        (_with(1, "spec", "automountServiceAccountToken"), "received 1, expected bool"),
        (_with({"name": "tmp"}, "spec", "volumes"), ".spec.volumes: received {'name': 'tmp'}, expected list[V1Volume]"),
        (_with([], *BASE, "resources"), "received [], expected V1ResourceRequirements"),
        (_with("ALL", *BASE, "securityContext", "capabilities", "drop"), "received 'ALL', expected list[str]"),
        (_without(*BASE, "volumeMounts", 0, "mountPath"), "volumeMounts[0].mountPath: is missing"),
        (_without("spec", "containers"), ".spec.containers: is missing"),
    ],
)
def test_a_mistake_in_the_template_is_found(change, told):
    pod = copy.deepcopy(TEMPLATE)
    change(pod)
    (found,) = mistakes(pod, "V1Pod")
    assert told in found


def test_nobody_can_write_or_become_more_than_he_is():
    pod, (base,) = TEMPLATE["spec"]["securityContext"], TEMPLATE["spec"]["containers"]
    user, group = map(int, of("USER")[0].split(":"))
    assert pod == VALUES["securityContexts"]["pod"]
    assert pod["runAsNonRoot"] and pod["runAsUser"] == VALUES["uid"] == user
    assert pod["runAsGroup"] == pod["fsGroup"] == VALUES["gid"] == group
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert base["securityContext"] == VALUES["securityContexts"]["containers"]
    assert base["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert TEMPLATE["spec"]["automountServiceAccountToken"] is False


def test_what_is_mounted_is_there_and_lands_where_the_image_looks():
    spec = TEMPLATE["spec"]
    mounts = {mount["name"]: mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in spec["volumes"]}
    made = {word for rest in of("RUN") for word in rest.split() if word.startswith("/opt/")}
    assert {mounts["logs"], mounts["config"]} <= made and mounts["tmp"] == "/tmp"
    assert mounts["models"] == f"{of('WORKDIR')[-1]}/dags/models"
    servers = {mount["name"]: mount["mountPath"] for mount in VALUES["volumeMounts"]}
    assert servers == {name: mounts[name] for name in ("tmp", "models")}
    assert [volume for volume in spec["volumes"] if volume["name"] in servers] == sorted(
        VALUES["volumes"], key=lambda volume: volume["name"]
    )


def test_tasks_know_no_secret_of_the_servers():
    (base,) = TEMPLATE["spec"]["containers"]
    assert base["envFrom"] == yaml.safe_load(VALUES["extraEnvFrom"])
    assert "nightshift-servers" not in str(TEMPLATE) and "valueFrom" not in str(base["env"])


# --- what differs from task to task


def test_every_task_has_its_memory(tmp_path, monkeypatch):
    from nightshift_pods import MEMORY

    models = tmp_path / "dags" / "models"
    subprocess.run(["cp", "-r", ROOT / "dags", tmp_path], check=True)
    with (models / "solar_cells.yaml").open("a") as file:
        file.write("scale: {shards: 2}\n")
    text = (models / "solar_cells.yaml").read_text().replace("model:\n", "model:\n  policy: features\n")
    (models / "solar_cells.yaml").write_text(text)
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "KubernetesExecutor")
    told = {task.task_id: executor_config(task) for task in parsed(models).tasks}
    assert told.keys() == MEMORY.keys()
    for task, config in told.items():
        (base,) = config["pod_override"].spec.containers
        assert base.resources.limits["memory"] == base.resources.requests["memory"] == MEMORY[task]


def executor_config(task):
    return task.partial_kwargs["executor_config"] if task.is_mapped else task.executor_config


def test_tasks_ask_for_what_was_measured_and_for_no_gpu():
    assert resources("train") == {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"memory": "4Gi"}}
    assert resources("evaluate") == {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "2Gi"}}
    assert as_yaml(override("train"))["spec"].keys() == {"containers"}


def test_trainings_get_their_gpus_and_nothing_else_does(two_gpus):
    train = as_yaml(override("train"))["spec"]
    held = {"memory": "16Gi", "nvidia.com/gpu": "2"}
    assert train["containers"] == [
        {
            "name": TEMPLATE["spec"]["containers"][0]["name"],
            "image": "nightshift:0.1.0-gpu",
            "resources": {"requests": {"cpu": "2", **held}, "limits": held},
        }
    ]
    assert train["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    for task in ("evaluate", "feature_shards"):
        assert "gpu" not in str(as_yaml(override(task)))
    assert resources("evaluate")["limits"] == {"memory": "6Gi"}


def test_gpus_may_have_another_name(two_gpus, monkeypatch):
    monkeypatch.setenv("NIGHTSHIFT_GPU_RESOURCE", "nvidia.com/mig-3g.20gb")
    assert resources("train")["limits"] == {"memory": "16Gi", "nvidia.com/mig-3g.20gb": "2"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NIGHTSHIFT_TRAIN_GPUS", "two"),
        ("NIGHTSHIFT_TRAIN_GPUS", "-1"),
        ("NIGHTSHIFT_TRAIN_GPUS", "0.5"),
        ("NIGHTSHIFT_POD_MEMORY", "16Gi"),
        ("NIGHTSHIFT_POD_MEMORY", "train=16"),
        ("NIGHTSHIFT_POD_MEMORY", "trian=16Gi"),
        ("NIGHTSHIFT_POD_MEMORY", "train=0Gi"),
    ],
)
def test_what_does_not_fit_is_told_in_a_line(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=re.escape(f"{name}: received '{value}', expected ")) as told:
        override("train")
    assert "\n" not in str(told.value)


def test_every_override_fits_the_clients_models(two_gpus):
    from nightshift_pods import MEMORY

    for task in MEMORY:
        assert mistakes(as_yaml(override(task)), "V1Pod") == []
    broken = override("train")
    broken.spec.containers[0].resources.limits["nvidia.com/gpu"] = 2
    assert mistakes(as_yaml(broken), "V1Pod") == [
        ".spec.containers[0].resources.limits.nvidia.com/gpu: received 2, expected str"
    ]


# --- through Airflow's own code


def as_airflow_makes_it(task, image="nightshift:0.1.0"):
    from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator

    return PodGenerator.construct_pod(
        dag_id="retrain_solar_cells",
        task_id=task,
        pod_id=f"retrain-solar-cells-{task}",
        try_number=1,
        kube_image=image,
        date=None,
        args=["python", "-m", "airflow.sdk.execution_time.execute_workload"],
        pod_override_object=override(task),
        base_worker_pod=PodGenerator.deserialize_model_file(str(FOLDER / "pod_template.yaml")),
        namespace="nightshift",
        scheduler_job_id="1",
        run_id="manual__1",
    )


def test_the_pod_that_airflow_makes_has_the_gpus_and_keeps_the_template(two_gpus):
    pod = as_yaml(as_airflow_makes_it("train"))
    assert mistakes(pod, "V1Pod") == []
    (base,), wanted = pod["spec"]["containers"], TEMPLATE["spec"]["containers"][0]
    assert base["resources"]["limits"] == {"memory": "16Gi", "nvidia.com/gpu": "2"}
    assert base["image"] == "nightshift:0.1.0-gpu" and base["args"][0] == "python"
    assert {key: base[key] for key in ("securityContext", "volumeMounts", "envFrom")} == {
        key: wanted[key] for key in ("securityContext", "volumeMounts", "envFrom")
    }
    assert wanted["env"][0] in base["env"]
    kept = TEMPLATE["spec"].keys() - {"containers"}
    assert {key: pod["spec"][key] for key in kept} == {key: TEMPLATE["spec"][key] for key in kept}
    assert TEMPLATE["metadata"]["annotations"].items() <= pod["metadata"]["annotations"].items()


def test_other_tasks_have_the_charts_image_and_no_gpu(two_gpus):
    (base,) = as_yaml(as_airflow_makes_it("promote"))["spec"]["containers"]
    assert base["image"] == "nightshift:0.1.0"
    assert base["resources"] == {"requests": {"cpu": "1", "memory": "3Gi"}, "limits": {"memory": "3Gi"}}


@pytest.mark.parametrize("executor", ["KubernetesExecutor", "LocalExecutor,KubernetesExecutor"])
def test_the_dag_brings_it_to_the_scheduler(executor, two_gpus, monkeypatch):
    from airflow.serialization.serialized_objects import DagSerialization

    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    dag = parsed()
    sent = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    config = sent.get_task("train").executor_config
    assert isinstance(config["pod_override"], V1Pod)
    assert as_yaml(config["pod_override"]) == as_yaml(override("train"))
    # As the metadata database keeps it, and as the executor hands it to its own process.
    assert as_yaml(pickle.loads(pickle.dumps(config))["pod_override"]) == as_yaml(override("train"))


@pytest.mark.parametrize("executor", ["LocalExecutor", "CeleryExecutor"])
def test_other_executors_are_told_nothing(executor, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    assert [task.task_id for task in parsed().tasks if task.executor_config] == []


def test_a_variable_that_does_not_fit_is_the_models_error(monkeypatch):
    from airflow.dag_processing.dagbag import DagBag

    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "KubernetesExecutor")
    monkeypatch.setenv("NIGHTSHIFT_TRAIN_GPUS", "two")
    bag = DagBag(ROOT / "dags")
    assert not bag.dags and "NIGHTSHIFT_TRAIN_GPUS: received 'two'" in str(bag.import_errors)


# --- values.yaml


def kubernetes_parts(values):
    """What of the values the chart puts into manifests as it is, with its type."""
    yield values["securityContexts"]["pod"], "V1PodSecurityContext"
    yield values["securityContexts"]["containers"], "V1SecurityContext"
    yield values["volumes"], "list[V1Volume]"
    yield values["volumeMounts"], "list[V1VolumeMount]"
    yield yaml.safe_load(values["extraEnvFrom"]), "list[V1EnvFromSource]"
    yield values["env"], "list[V1EnvVar]"
    yield values["dagProcessor"]["env"], "list[V1EnvVar]"
    yield values["migrateDatabaseJob"]["extraVolumes"], "list[V1Volume]"
    yield values["migrateDatabaseJob"]["extraVolumeMounts"], "list[V1VolumeMount]"
    for part in (*SERVERS, "migrateDatabaseJob"):
        yield values[part]["resources"], "V1ResourceRequirements"
    for part in SERVERS:
        for name in ("livenessProbe", "startupProbe"):
            probe = dict(values[part].get(name, {}))
            command = {"exec": {"command": probe.pop("command")}} if "command" in probe else {}
            yield command | probe, "V1Probe"


def test_the_parts_of_manifests_fit_the_clients_models():
    assert [mistake for part, kind in kubernetes_parts(VALUES) for mistake in mistakes(part, kind)] == []


@pytest.mark.parametrize(
    "change",
    [
        _with({"emptyDirectory": {}, "name": "tmp"}, "volumes", 0),
        _with("- secretReference: {name: a}", "extraEnvFrom"),
        _with({"memory": 512}, "scheduler", "resources", "requests"),
        _with("50", "triggerer", "livenessProbe", "timeoutSeconds"),
        _with("airflow jobs check", "triggerer", "livenessProbe", "command"),
        _with("true", "securityContexts", "pod", "runAsNonRoot"),
    ],
)
def test_a_mistake_in_the_values_is_found(change):
    values = copy.deepcopy(VALUES)
    change(values)
    assert len([mistake for part, kind in kubernetes_parts(values) for mistake in mistakes(part, kind)]) == 1


def test_airflow_knows_every_setting():
    from airflow.configuration import conf

    known = conf.configuration_description
    unknown = [
        f"{section}.{key}"
        for section, options in VALUES["config"].items()
        for key in options
        if key not in known.get(section, {"options": {}})["options"]
    ]
    assert unknown == []
    assert "pods_creation_batch_size" not in known["kubernetes_executor"]["options"]


def test_shared_settings_are_those_of_the_compose_file():
    told = {
        f"AIRFLOW__{section}__{key}".upper(): value
        for section, options in VALUES["config"].items()
        for key, value in options.items()
    }
    compose = COMPOSE["services"]["scheduler"]["environment"]
    apart = {"AIRFLOW__CORE__EXECUTION_API_SERVER_URL", "AIRFLOW__API__BASE_URL"}
    secret = re.compile(r"CELERY|SECRET|FERNET|SQL_ALCHEMY_CONN$|AIRFLOW__API__PORT|AIRFLOW__CORE__EXECUTOR$")
    shared = {name for name in compose if name.startswith("AIRFLOW__") and not secret.search(name)}
    assert shared <= told.keys() and apart <= shared
    assert {name: told[name] for name in shared - apart} == {name: compose[name] for name in shared - apart}
    assert VALUES["executor"] == "KubernetesExecutor"


def test_commands_are_airflows_and_need_no_entrypoint():
    from airflow.cli.cli_parser import get_parser

    probes = [
        VALUES[part][name] for part in SERVERS for name in ("livenessProbe", "startupProbe") if name in VALUES[part]
    ]
    commands = [probe["command"] for probe in probes if "command" in probe]
    *shell, script = VALUES["migrateDatabaseJob"]["args"]
    commands += [line.split(" >")[0].split() for line in script.replace("|| airflow", "\nairflow").splitlines()]
    assert shell == ["bash", "-euc"] and len(commands) == 4 + 3
    for name, *words in commands:
        assert name == "airflow"
        get_parser().parse_args([word.strip("'") for word in words][:5])
    assert "airflow pools set training 1 " in script
    # Their default is a script that only Airflow's own image has; so is that of every other probe by command.
    for part in SERVERS[1:]:
        assert VALUES[part]["logGroomerSidecar"] == {"enabled": False} and VALUES[part]["livenessProbe"]["command"]


def test_versions_are_those_of_the_rest():
    pinned = dict(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    assert VALUES["airflowVersion"] == pinned["apache-airflow"]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert VALUES["images"]["airflow"] == {"repository": "nightshift", "tag": version}
    assert TEMPLATE["spec"]["containers"][0]["image"] == (
        "{{ .Values.images.airflow.repository }}:{{ .Values.images.airflow.tag }}"
    )
    provider = re.compile(r"^apache-airflow-providers-cncf-kubernetes==.*", re.MULTILINE)
    (dev,), (image,) = (
        provider.findall((ROOT / f"requirements-{name}.txt").read_text()) for name in ("dev", "production")
    )
    assert dev == image


# --- secrets


def literals(values, at=""):
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        if isinstance(value, (dict, list)):
            yield from literals(value, f"{at}.{key}")
        else:
            yield f"{at}.{key}", value


def test_no_secret_is_written_and_no_default_of_the_chart_is_left():
    named = [at for at, _ in literals(VALUES) if re.search(r"(?i)pass|secret|token|key", at) and "SecretName" not in at]
    switched_off = [".enableBuiltInSecretEnvVars.AIRFLOW_CONN_AIRFLOW_DB"]
    accounts = [f".{part}.serviceAccount.automountServiceAccountToken" for part in (*SERVERS[2:], "migrateDatabaseJob")]
    assert sorted(at for at in named if "jwtSecretName" not in at) == sorted([*switched_off, *accounts])
    assert {value for at, value in literals(VALUES) if at in (*switched_off, *accounts)} == {False}
    assert not re.search(r"://[^/@\s]*:[^@/\s]+@", (FOLDER / "values.yaml").read_text())
    for part in ("postgresql", "createUserJob", "redis"):
        assert VALUES[part] == {"enabled": False}
    names = [
        VALUES["data"]["metadataSecretName"],
        *(VALUES[f"{name}SecretName"] for name in ("fernetKey", "apiSecretKey")),
    ]
    assert {*names, VALUES["jwtSecretName"]} == {written_secret()["metadata"]["name"]}


def printed(**environment):
    command = ["sh", FOLDER / "secrets.sh"]
    known = {"PATH": os.environ["PATH"], **environment}
    return subprocess.run(command, env=known, capture_output=True, text=True, check=False)


def written_secret():
    return yaml.safe_load(printed(NIGHTSHIFT_DATABASE=DATABASE).stdout)


def test_the_script_makes_good_secrets_and_new_ones_each_time():
    secret, other = written_secret(), written_secret()
    assert mistakes(secret, "V1Secret") == []
    keys = secret["stringData"]
    assert keys.pop("connection") == DATABASE == other["stringData"].pop("connection")
    Fernet(keys["fernet-key"])
    assert {name: len(key) for name, key in keys.items()} == {"fernet-key": 44, "api-secret-key": 64, "jwt-secret": 64}
    assert len({*keys.values(), *other["stringData"].values()}) == 6


@pytest.mark.parametrize(
    "database", ["", "p://a:it's@db/a", "p://a:it@db/a\nkind: Pod", "p://a:it@db/a?sslmode=require"]
)
def test_the_script_refuses_what_would_break_the_secret(database):
    ended = printed(NIGHTSHIFT_DATABASE=database)
    assert ended.returncode and not ended.stdout and ended.stderr.count("\n") == 1
    assert "NIGHTSHIFT_DATABASE" in ended.stderr and "a:it" not in ended.stderr
