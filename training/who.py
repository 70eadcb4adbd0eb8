"""Who is at work: a person at a machine, or Airflow's task there."""

import getpass
import os
import platform


def who() -> str:
    """``user@host``, and in an Airflow task its DAG, run and try, which Airflow puts into the environment."""
    here = f"{_user()}@{platform.node()}"
    dag, run, attempt = (os.environ.get(f"AIRFLOW_CTX_{name}") for name in ("DAG_ID", "DAG_RUN_ID", "TRY_NUMBER"))
    return f"{here}, Airflow {dag} {run} try {attempt}" if dag and run else here


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number without a name
        return str(os.getuid())
