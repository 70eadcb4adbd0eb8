import getpass
import platform

from training.who import who


def test_a_person_at_a_machine(monkeypatch):
    for name in ("DAG_ID", "DAG_RUN_ID", "TRY_NUMBER"):
        monkeypatch.delenv(f"AIRFLOW_CTX_{name}", raising=False)
    assert who() == f"{getpass.getuser()}@{platform.node()}"


def test_airflows_task(monkeypatch):
    for name, value in {"DAG_ID": "retrain_roofs", "DAG_RUN_ID": "manual__1", "TRY_NUMBER": "2"}.items():
        monkeypatch.setenv(f"AIRFLOW_CTX_{name}", value)
    assert who().endswith(", Airflow retrain_roofs manual__1 try 2")


def test_a_user_without_a_name_is_a_number(monkeypatch):
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 54321)
    assert who().startswith("54321@")
