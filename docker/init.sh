#!/bin/sh
# What compose.yaml's `init` does before every start; whatever is there already is left as it is.
set -eu

airflow db migrate
# A task in a pool that does not exist waits for ever.
airflow pools get training >/dev/null 2>&1 || airflow pools set training 1 'One training at a time'
# By standard input: arguments can be read by everybody on the host.
printf '%s\n%s\n' "$AIRFLOW_ADMIN_PASSWORD" "$AIRFLOW_ADMIN_PASSWORD" |
    airflow users create --username admin --role Admin --firstname First --lastname Admin --email admin@localhost

python - <<'PYTHON'
import os

import boto3
import psycopg2
from psycopg2 import sql

database = psycopg2.connect(os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("+psycopg2", ""))
database.autocommit = True
with database.cursor() as cursor:
    cursor.execute("SELECT FROM pg_roles WHERE rolname = 'results'")
    verb = "ALTER" if cursor.fetchone() else "CREATE"
    cursor.execute(sql.SQL(verb + " ROLE results LOGIN PASSWORD {}").format(sql.Literal(os.environ["RESULTS_PASSWORD"])))
    cursor.execute("SELECT FROM pg_database WHERE datname = 'results'")
    if not cursor.fetchone():
        cursor.execute("CREATE DATABASE results OWNER results")
    # PostgreSQL lets every role into every database until told otherwise.
    cursor.execute("REVOKE CONNECT ON DATABASE airflow FROM PUBLIC")

bucket, store = os.environ["NIGHTSHIFT_BUCKET"], boto3.client("s3")
try:
    store.head_bucket(Bucket=bucket)
except store.exceptions.ClientError as error:
    if error.response["Error"]["Code"] not in ("404", "NoSuchBucket"):
        raise SystemExit(f"bucket {bucket}: {error}") from None
    store.create_bucket(Bucket=bucket)
PYTHON
