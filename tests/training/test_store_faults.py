"""What the store on S3 makes of a bad network: right, or one named error within its time; never something else."""

import os
import time

import pytest

from tests.faults import FAULTS, always, at_random, first, proxy
from training.errors import NightshiftError, StoreError
from training.store import NotFound, open_store, s3_client

CONTENT = bytes(range(256)) * 100
# In a listing nothing says what it should be, and a HEAD or DELETE has no body; TLS answers for those.
UNHELD = {("list", "flipped")}
SAMPLE = {
    "read": ("reset", "truncated", "stall", "flipped"),
    "write": ("503", "flipped_sending"),
    "create": ("lost_answer",),
    "list": ("truncated",),
    "delete": ("reset_sending",),
}
OPERATIONS = ("read", "write", "create", "list", "delete", "exists")


@pytest.fixture
def faulty(s3, monkeypatch):
    """A proxy before the server, with patience of seconds."""

    with proxy(os.environ["AWS_ENDPOINT_URL"]) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("NIGHTSHIFT_S3_READ_TIMEOUT", "0.5")
        monkeypatch.setenv("NIGHTSHIFT_S3_CONNECT_TIMEOUT", "0.5")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
        s3_client.client.cache_clear()
        yield server


@pytest.fixture
def store(faulty, s3):
    store = open_store(f"{s3}/a/prefix")
    store.write("there", CONTENT)
    return store


def _do(store, operation):
    """The operation's result, and what it must be."""
    if operation == "read":
        return store.read("there"), CONTENT
    if operation == "write":
        store.write("new", CONTENT[::-1])
        return None, None
    if operation == "create":
        return store.create("new", CONTENT[::-1]), True
    if operation == "list":
        return [entry.key for entry in store.list()], ["there"]
    if operation == "exists":
        return store.exists("there"), True
    return store.delete("there"), None


def _left(store, operation):
    """What must be there afterwards."""
    contents = {entry.key: store.read(entry.key) for entry in store.list()}
    new = {"new": CONTENT[::-1]} if operation in ("write", "create") else {}
    assert contents == ({} if operation == "delete" else {"there": CONTENT}) | new


def _passes(faulty, store, operation, fault):
    faulty.requests.clear()
    faulty.plan = first(fault)
    found, expected = _do(store, operation)
    assert found == expected, (operation, fault)
    assert [seen for *_, seen in faulty.requests].count(fault) == 1
    faulty.plan = lambda *_: None
    _left(store, operation)
    store.delete("new")
    store.write("there", CONTENT)


def _stays(faulty, store, operation, fault):
    faulty.plan = always(fault)
    harmless = {"read": ("reset_sending", "flipped_sending"), "write": ("flipped",), "create": ("flipped",)}
    begun = time.monotonic()
    try:
        found, expected = _do(store, operation)
    except StoreError as error:
        assert "\n" not in error.message and error.exit_code == 1
        assert "s3://nights/a/prefix/" in error.message
    else:
        assert fault in harmless[operation] and found == expected, (operation, fault)
    # Three tries of half a second and the waits between, of one and two seconds at most, for each of two layers.
    assert time.monotonic() - begun < 20
    faulty.plan = lambda *_: None
    assert store.read("there") == CONTENT
    if store.exists("new"):
        assert store.read("new") == CONTENT[::-1]
        store.delete("new")


def test_faults_that_pass_are_not_noticed(faulty, store):
    for operation, faults in SAMPLE.items():
        for fault in faults:
            _passes(faulty, store, operation, fault)


@pytest.mark.parametrize("fault", ["reset", "truncated", "stall"])
def test_a_missing_key_is_missing_even_if_the_answer_breaks_off(faulty, store, fault):
    for method in ("GET", "PUT"):
        faulty.plan = first(fault, method=method)
        if method == "GET":
            with pytest.raises(NotFound):
                store.read("not there")
        else:
            assert not store.create("there", CONTENT)
    assert [seen for *_, seen in faulty.requests].count(fault) == 2


def test_faults_that_stay_are_one_named_error_in_time(faulty, store):
    for operation, fault in (("read", "flipped"), ("read", "stall"), ("create", "500")):
        _stays(faulty, store, operation, fault)


@pytest.mark.soak
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_that_passes_is_not_noticed(faulty, store, fault, operation):
    if (operation, fault) not in UNHELD:
        _passes(faulty, store, operation, fault)


@pytest.mark.soak
@pytest.mark.parametrize("operation", ["read", "write", "create"])
@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_that_stays_is_one_named_error_in_time(faulty, store, fault, operation):
    _stays(faulty, store, operation, fault)


def test_a_creation_whose_answer_was_lost_is_known_as_ones_own(faulty, store):
    faulty.plan = first("lost_answer", method="PUT")
    assert store.create("entry", b"mine")
    assert [method for method, *_ in faulty.requests].count("PUT") >= 2
    assert not store.create("entry", b"mine")  # the same content, but not the same writer


def test_large_contents_go_in_parts_each_held_against_its_checksum(faulty, store):
    content = CONTENT * 400
    faulty.plan = first("flipped_sending", method="PUT")
    store.write("large", content)
    assert store.read("large") == content
    parts = {path for method, path, _ in faulty.requests if method == "PUT" and "partNumber" in path}
    assert len(parts) >= 2


def test_an_upload_that_fails_leaves_no_parts_behind(faulty, store):
    faulty.plan = lambda method, path: "500" if "partNumber=2" in path else None
    with pytest.raises(StoreError):
        store.write("large", CONTENT * 400)
    assert not store.exists("large")
    assert "Uploads" not in s3_client.client().list_multipart_uploads(Bucket="nights")


def test_sweeping_ends_uploads_of_killed_writers_below_the_prefix_alone(store, s3):
    client = s3_client.client()
    for key in ("a/prefix/run/model", "b/other"):
        client.create_multipart_upload(Bucket="nights", Key=key)
    open_store(f"{s3}/a/prefix/run").sweep()
    assert [left["Key"] for left in client.list_multipart_uploads(Bucket="nights")["Uploads"]] == ["b/other"]


def test_what_was_damaged_in_the_bucket_is_never_returned(store, s3):
    client = s3_client.client()
    metadata = client.head_object(Bucket="nights", Key="a/prefix/there")["Metadata"]
    client.put_object(Bucket="nights", Key="a/prefix/there", Body=CONTENT[:-1] + b"!", Metadata=metadata)
    with pytest.raises(StoreError, match="damaged content") as caught:
        store.read("there")
    assert caught.value.cause == "damaged"


def test_a_read_is_one_request(faulty, store):
    faulty.requests.clear()
    store.read("there")
    assert [method for method, *_ in faulty.requests] == ["GET"]


def test_only_the_weakest_primitives_are_sent(faulty, store):
    """No checksum trailers and no If-Match, which many servers refuse."""
    sent = []
    for operation in ("PutObject", "UploadPart", "GetObject"):
        s3_client.client().meta.events.register(
            f"before-send.s3.{operation}", lambda request, **_: sent.append(set(map(str.lower, request.headers)))
        )
    store.write("small", CONTENT)
    store.write("large", CONTENT * 400)
    assert store.create("entry", b"x")
    store.read("small")
    names = set.union(*sent)
    assert not {"x-amz-trailer", "x-amz-sdk-checksum-algorithm", "if-match", "x-amz-checksum-mode"} & names
    assert not [name for name in names if name.startswith("x-amz-checksum-")]
    assert {"content-md5", "if-none-match"} <= names


@pytest.mark.soak
def test_many_operations_at_random_faults(faulty, store):
    faulty.plan = at_random(0.2, seed=1)
    expected, named = {}, 0
    for number in range(400):
        key, content = f"files/{number % 40:02d}", f"{number} ".encode() * (1 + 97 * number % 5000)
        try:
            store.write(key, content)
            expected[key] = {content}
        except NightshiftError:
            expected.setdefault(key, set()).add(content)  # it may have been done, or not
            named += 1
        try:
            assert store.read(key) in expected[key]
        except NightshiftError:
            named += 1
    assert named < 40
    faulty.plan = lambda *_: None
    assert {entry.key for entry in store.list("files/")} <= set(expected)
    assert all(store.read(entry.key) in expected[entry.key] for entry in store.list("files/"))
