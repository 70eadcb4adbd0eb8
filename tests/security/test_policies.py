"""The bucket's policies: what the stores really ask for is allowed, nothing else is, and a server holds to it."""

import fnmatch
import json

import boto3
import pytest
import requests

from tests.conftest import ROOT
from training.errors import StoreError
from training.store import open_store, s3_client

PLACES = {"BUCKET": "nights", "DATA": "cells", "RUNS": "runs", "CHAMPIONS": "champions"}
# https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
ACTIONS = {
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "PutObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "DeleteObject": "s3:DeleteObject",
    "ListObjectsV2": "s3:ListBucket",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
}


def policy(name: str) -> dict:
    text = (ROOT / "docs" / "iam" / f"{name}.json").read_text()
    for word, place in PLACES.items():
        text = text.replace(word, place)
    return json.loads(text)


def granted(document: dict) -> set[tuple[str, str]]:
    """Every pair of action and resource that is allowed."""
    found = set[tuple[str, str]]()
    for statement in document["Statement"]:
        assert statement["Effect"] == "Allow" and statement["Sid"]
        resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        found |= {(action, resource) for action in statement["Action"] for resource in resources}
    return found


def needless(document: dict, asked: set[tuple[str, str]]) -> set[tuple[str, str]]:
    return {pair for pair in granted(document) if not any(_covers(pair, one) for one in asked)}


def refused(document: dict, asked: set[tuple[str, str]]) -> set[tuple[str, str]]:
    return {one for one in asked if not any(_covers(pair, one) for pair in granted(document))}


def _covers(pair: tuple[str, str], asked: tuple[str, str]) -> bool:
    return pair[0] == asked[0] and fnmatch.fnmatchcase(asked[1], pair[1])


@pytest.fixture
def asked(s3):
    """What is asked of S3 from now on, as pairs of action and resource."""
    found = set[tuple[str, str]]()

    def note(params, model, **_):
        key = params.get("Key")
        place = params["Bucket"] + (f"/{key}" if key else "")
        found.add((ACTIONS[model.name], f"arn:aws:s3:::{place}"))

    s3_client.client().meta.events.register("provide-client-params.s3", note)
    return found


def everything_of_a_store(uri: str) -> None:
    """Every method of a store, and both ways to upload."""
    store = open_store(uri)
    large = bytes(s3_client.several_parts().multipart_threshold + 1)
    store.write("small", b"1")
    store.write("large", large)
    assert store.create("once", b"1") and not store.create("once", b"2")
    assert store.read("large") == large and store.exists("small") and not store.exists("missing")
    assert [entry.key for entry in store.list()] == ["large", "once", "small"] and not list(store.folders())
    upload = boto3.client("s3").create_multipart_upload(Bucket="nights", Key=f"{uri.partition('nights/')[2]}/left")
    assert upload["UploadId"]
    store.sweep()
    store.delete("small")


def read_a_store(uri: str) -> None:
    store = open_store(uri)
    for entry in store.list():
        store.read(entry.key)


def test_tasks_may_do_what_they_do_and_nothing_else(asked):
    boto3.client("s3").put_object(Bucket="nights", Key="cells/a.png", Body=b"1")
    read_a_store("s3://nights/cells")
    for place in (
        "runs/solar_cells/x",
        "champions/solar_cells",
        "champions/solar_cells_data",
        "runs/_nights/solar_cells",
    ):
        everything_of_a_store(f"s3://nights/{place}")
    tasks = policy("tasks")
    assert refused(tasks, asked) == set()
    assert needless(tasks, asked) == set()
    for statement in tasks["Statement"]:
        for action in list(statement["Action"]):
            statement["Action"].remove(action)
            assert refused(tasks, asked), action
            statement["Action"].append(action)


def test_who_serves_the_champion_may_read_it(asked):
    boto3.client("s3").put_object(Bucket="nights", Key="champions/solar_cells/history/1.json", Body=b"{}")
    read_a_store("s3://nights/champions/solar_cells")
    serving = policy("serving")
    assert refused(serving, asked) == needless(serving, asked) == set()
    assert ("s3:PutObject", "arn:aws:s3:::nights/champions/x") in refused(
        serving, {("s3:PutObject", "arn:aws:s3:::nights/champions/x")}
    )


@pytest.fixture
def held_to(s3, monkeypatch):
    """From then on the server holds everybody to what policies allow, us to the one that is named."""
    endpoint = s3_client.client().meta.endpoint_url
    iam = boto3.client("iam", endpoint_url=endpoint)
    boto3.client("s3").put_object(Bucket="nights", Key="cells/a.png", Body=b"1")
    boto3.client("s3").put_object(Bucket="nights", Key="other/secret", Body=b"1")
    boto3.client("s3").put_object(Bucket="nights", Key="champions/a/model.keras", Body=b"1")

    def hold(name: str) -> None:
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName=name, PolicyDocument=json.dumps(policy(name)))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        s3_client.client.cache_clear()
        requests.post(f"{endpoint}/moto-api/reset-auth", data=b"0", timeout=10)

    yield hold
    requests.post(f"{endpoint}/moto-api/reset-auth", data=b"inf", timeout=10)


def test_a_server_lets_tasks_work_and_keeps_them_out_of_the_rest(held_to):
    held_to("tasks")
    read_a_store("s3://nights/cells")
    store = open_store("s3://nights/runs/solar_cells/x")
    store.write("a", b"1")
    assert store.create("b", b"2") and store.read("a") == b"1" and [one.key for one in store.list()] == ["a", "b"]
    store.delete("a")
    for place, work in (("cells", "write"), ("other", "read"), ("other", "write")):
        with pytest.raises(StoreError, match=r"answered (AccessDenied|403)"):
            _try(f"s3://nights/{place}", work)


def test_a_server_lets_serving_hosts_read_the_champion_alone(held_to):
    held_to("serving")
    read_a_store("s3://nights/champions/a")
    for place, work in (("champions/a", "write"), ("cells", "read")):
        with pytest.raises(StoreError, match=r"answered (AccessDenied|403)"):
            _try(f"s3://nights/{place}", work)


def _try(uri: str, work: str) -> None:
    if work == "write":
        open_store(uri).write("new", b"1")
    else:
        open_store(uri).read({"s3://nights/other": "secret"}.get(uri, "a.png"))
