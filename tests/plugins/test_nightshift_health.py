"""Training health over HTTP: who gets in, what gets out, how much of it and how fast."""

import contextlib
import gzip
import http.client
import json
import re
import time

import pytest
import requests

from tests import recorded_nights
from tests.airflow_pages import served
from tests.plugins.conftest import SECRET
from training.run_folder import folder_name

ROOT = "/training-health"
RUN = recorded_nights.nights(45, seed=3)[-1][1].run
FILLED = {"dag_id": "retrain_first", "run": recorded_nights.nights(1000)[-1][1].run, "path": "index.html"}
READERS = ("GET", "HEAD")


def every_route() -> list[tuple[str, list[str]]]:
    """(path, methods) of each route of the app, with values in the places of its parameters."""
    from nightshift_health_app import app

    filled = {**FILLED, "name": "health.css"}
    routes = [route for route in app().routes if hasattr(route, "methods")]
    return [(ROOT + re.sub(r"{(\w+)(:path)?}", lambda m: filled[m[1]], route.path), route.methods) for route in routes]


def raw(pages, path: str, user: str | None = "reader", method: str = "GET") -> tuple[int, bytes]:
    """Ask for a path just as it is written: other clients would tidy it up."""
    connection = http.client.HTTPConnection(pages.url.removeprefix("http://"), timeout=30)
    cookie = {} if user is None else {"Cookie": f"_token={pages.token(user)}"}
    with contextlib.closing(connection):
        connection._validate_path = lambda _path: None
        connection.request(method, path, headers=cookie)
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_without_a_session_nothing_answers(pages):
    routes = every_route()
    assert len(routes) >= 10
    for path, methods in [*routes, (f"{ROOT}/openapi.json", READERS), (f"{ROOT}/docs", READERS)]:
        for method in {*methods, "POST", "OPTIONS"}:
            if method != "TRACE":  # uvicorn refuses it by itself
                assert requests.request(method, pages.url + path, timeout=30).status_code == 401, (method, path)


def test_a_stale_or_made_up_session_is_none(pages):
    for token in ("x", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJyZWFkZXIifQ."):
        answer = requests.get(f"{pages.url}{ROOT}/", cookies={"_token": token}, timeout=30)
        assert answer.status_code in (401, 403)


def test_who_may_not_read_the_dag_sees_nothing_of_it(pages):
    outsider = pages.session("outsider")
    for path, _ in every_route():
        if "/dags/" in path:
            assert outsider.get(pages.url + path).status_code == 403, path
    assert outsider.get(f"{pages.url}{ROOT}/dags/elsewhere/").status_code == 403
    assert outsider.get(f"{pages.url}{ROOT}/dags/retrain_second/nights").status_code == 200


def test_the_first_page_lists_what_may_be_read(pages):
    text = pages.session("reader").get(f"{pages.url}{ROOT}/").text
    assert "dags/retrain_first/" in text and "1000 nights" in text and "elsewhere" not in text
    outsider = pages.session("outsider").get(f"{pages.url}{ROOT}/")
    assert "retrain_first" not in outsider.text and "retrain_second" in outsider.text


def test_it_only_reads(pages):
    reader = pages.session("reader")
    for path, _ in every_route():
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert reader.request(method, pages.url + path).status_code == 405, (method, path)
    assert reader.head(f"{pages.url}{ROOT}/dags/retrain_first/").status_code == 200


def test_a_dag_that_is_none_of_ours(pages):
    for dag_id in ("elsewhere", "unknown", "~", "retrain_"):
        answer = pages.session("reader").get(f"{pages.url}{ROOT}/dags/{dag_id}/")
        assert answer.status_code == 404 and "does not retrain a model" in answer.text


RUNS = (
    "..",
    ".",
    "%2e%2e",
    "..%2f..%2fsecret.html%00",
    "%2e%2e%2f%2e%2e%2fsecret.html%3f",
    "..%5c..",
    "\\..\\..",
    "%00",
    "a%00b",
    "%2fetc",
    "linked",
    RUN,
    f"..%2fsecond%2f{RUN}",
    f"../second/{RUN}",
    "%3Cscript%3Ealert(1)%3Cscript%3E",
    "<script>alert(1)<script>",
    "x" * 121,
    "markup%0d%0aX-Injected:%20yes",
    "markup ",
    "%ff%fe",
    "..;",
    "markup%2f..%2flinked",
)
DOCS = (
    "../config.json",
    "..%2fconfig.json",
    "%2e%2e/config.json",
    "../outside.html",
    "..%2foutside.html",
    "%2e%2e%2foutside.html",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "//etc/passwd",
    "..%5coutside.html",
    "a%00.html",
    "linked.html",
    "folder/report.html",
    ".hidden.html",
    "keys.pem",
    "./.hidden.html",
    "%252e%252e/outside.html",
    "index.html/../../outside.html",
    "x" * 5000 + ".html",
)
ASSETS = (
    "..%2f..%2fnightshift_health.py",
    "../templates/base.html.jinja",
    "%2fetc%2fpasswd",
    "health.css%00",
    "nothing.js",
    "",
)


@pytest.mark.parametrize("run", RUNS)
def test_no_name_of_a_run_leads_elsewhere(pages, run):
    for document in ("report.html", "data_docs/index.html", "data_docs/"):
        status, body = raw(pages, f"{ROOT}/dags/retrain_hostile/runs/{run}/{document}".replace(" ", "%20"))
        assert status in (400, 404), (status, body[:300])
        refused(body)


@pytest.mark.parametrize("path", DOCS)
def test_no_path_of_data_docs_leads_elsewhere(pages, path):
    status, body = raw(pages, f"{ROOT}/dags/retrain_hostile/runs/markup/data_docs/{path}")
    assert status in (400, 404), (status, body[:300])
    refused(body)


@pytest.mark.parametrize("name", ASSETS)
def test_no_name_of_an_asset_leads_elsewhere(pages, name):
    status, body = raw(pages, f"{ROOT}/assets/{name}")
    assert status in (400, 404) and b"AirflowPlugin" not in body and b"root:" not in body


def refused(body: bytes) -> None:
    assert SECRET.encode() not in body and b"root:" not in body and b"<script>alert" not in body
    assert f"Report of {RUN}".encode() not in body and f"Data of {RUN}".encode() not in body


@pytest.mark.parametrize("dag", ["..", "%2e%2e", "retrain_..", "retrain_%2e%2e%2fsecond", "<script>alert(1)</script>"])
def test_no_name_of_a_dag_leads_elsewhere(pages, dag):
    for rest in ("", "nights", f"runs/{RUN}/report.html", f"compare?one={RUN}&other={RUN}"):
        status, body = raw(pages, f"{ROOT}/dags/{dag}/{rest}")
        assert status == 404 and b"<script>alert" not in body


def test_a_link_that_leads_outside_is_not_followed(pages):
    status, body = raw(pages, f"{ROOT}/dags/retrain_hostile/runs/markup/report.html")
    assert status == 404 and SECRET.encode() not in body and b"no report" in body


def test_markup_in_a_nights_texts_is_text(pages):
    reader, base = pages.session("reader"), f"{pages.url}{ROOT}/dags/retrain_hostile"
    absent = reader.get(f"{base}/runs/markup/report.html").text
    both = reader.get(f"{base}/compare", params={"one": "markup", "other": "markup"}).text
    found = reader.get(f"{base}/nights")
    assert "&lt;script&gt;" in absent and "&lt;script&gt;" in both
    assert "<script>document" not in absent + both and "<img src=x" not in absent + both
    assert found.json()["run"] == ["markup"] and found.headers["Content-Type"] == "application/json"


def test_documents_of_a_night(pages):
    reader, base = pages.session("reader"), f"{pages.url}{ROOT}/dags/retrain_second/runs/{RUN}"
    report, docs = reader.get(f"{base}/report.html"), reader.get(f"{base}/data_docs/")
    assert f"Report of {RUN}" in report.text and f"Data of {RUN}" in docs.text
    assert reader.get(f"{base}/data_docs/validations/it.html").text == "<p>validated</p>"
    for answer in (report, docs):
        policy = answer.headers["Content-Security-Policy"]
        assert "sandbox allow-same-origin" in policy and "script" not in policy and "default-src 'none'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_every_answer_carries_its_guards(pages):
    reader = pages.session("reader")
    for path, methods in every_route():
        if "GET" in methods:
            answer = reader.get(pages.url + path, allow_redirects=False)
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy and "frame-ancestors 'self'" in policy, path
            assert "unsafe-eval" not in policy and "script-src 'self' 'unsafe" not in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Cache-Control"].startswith("private")


def test_nights_without_a_record_come_from_airflow(pages):
    reader = pages.session("reader")
    found = reader.get(f"{pages.url}{ROOT}/dags/retrain_second/nights").json()
    nights = dict(zip(found["run_id"], zip(found["outcome"], found["cause"], strict=True), strict=True))
    assert nights["manual__killed"] == ("failed", "killed") and nights["manual__2024+now"] == ("running", None)
    base = f"{pages.url}{ROOT}/dags/retrain_second/runs"
    absent = reader.get(f"{base}/{folder_name('manual__2024+now')}/report.html")
    assert absent.status_code == 404 and "not that far yet" in absent.text and "runs/manual__2024%2Bnow" in absent.text
    assert "killed" in reader.get(f"{base}/manual__killed/report.html").text


def test_rejected_data_offers_the_data_docs(pages):
    night = next(one for _, one in recorded_nights.nights(45, seed=3)[-5:] if one.step == "validate")
    answer = pages.session("reader").get(f"{pages.url}{ROOT}/dags/retrain_second/runs/{night.run}/report.html")
    assert answer.status_code == 404 and "data_docs/index.html" in answer.text and f"#{night.cause}" in answer.text


def test_two_nights_side_by_side(pages):
    one, other = (night.run for _, night in recorded_nights.nights(45, seed=3)[-2:])
    base = f"{pages.url}{ROOT}/dags/retrain_second/compare"
    text = pages.session("reader").get(base, params={"one": other, "other": one}).text
    assert text.index(one) < text.index(other) and "<code>seed</code>" in text and "Served" in text
    assert pages.session("reader").get(base, params={"one": one, "other": "first"}).status_code == 404


def test_the_runbook_has_the_causes_as_anchors(pages):
    text = pages.session("reader").get(f"{pages.url}{ROOT}/runbook").text
    for cause in (
        "batch_norm",
        "non_finite",
        "every_class_in_every_split",
        "enough_of_each_class",
        "size_drift",
        "store",
    ):
        assert text.count(f'id="{cause}"') == 1


def test_a_thousand_nights_are_small_and_quick(pages):
    reader, base = pages.session("reader"), f"{pages.url}{ROOT}/dags/retrain_first"
    reader.get(f"{base}/nights")
    began = time.perf_counter()
    page, nights = reader.get(f"{base}/"), reader.get(f"{base}/nights", stream=True)
    packed = nights.raw.read(decode_content=False)
    seconds = time.perf_counter() - began
    tree = json.loads(gzip.decompress(packed))
    print(f"{seconds:.2f} s, {len(packed) / 1024:.0f} KiB packed, {len(gzip.decompress(packed)) / 1024:.0f} KiB plain")
    assert len(tree["run"]) == 1000 and seconds < 1
    assert len(page.content) + len(packed) < 200 * 1024


def test_assets_may_be_kept_and_are_all_local(pages):
    reader = pages.session("reader")
    text = reader.get(f"{pages.url}{ROOT}/dags/retrain_first/").text
    addresses = re.findall(r'(?:src|href)="([^"]+\?v=[^"]+)"', text)
    assert len(addresses) >= 8 and not re.search(r'(?:src|href)="https?:', text)
    for address in addresses:
        answer = reader.get(pages.url + address)
        assert answer.status_code == 200 and "immutable" in answer.headers["Cache-Control"]


def test_the_ui_is_told_of_the_pages(pages):
    plugins = pages.session("reader").get(f"{pages.url}/api/v2/plugins").json()["plugins"]
    (ours,) = [plugin for plugin in plugins if plugin["name"] == "nightshift_health"]
    assert {view["destination"] for view in ours["external_views"]} == {"nav", "dag"}
    errors = pages.session("reader").get(f"{pages.url}/api/v2/plugins/importErrors").json()
    assert errors["total_entries"] == 0


def test_nights_on_s3(s3, tmp_path, monkeypatch):
    found = recorded_nights.nights(40)
    recorded_nights.keep(f"{s3}/runs", "first", found, folders=3)
    dags = {"retrain_first": (["nightshift"], {"store__runs": f"{s3}/runs"})}
    dags["retrain_lost"] = (["nightshift"], {"store__runs": "s3://no-such-bucket/runs"})
    with served(tmp_path, dags, [], AWS_MAX_ATTEMPTS="1") as pages:
        reader, base = pages.session("reader"), f"{pages.url}{ROOT}/dags"
        nights = reader.get(f"{base}/retrain_first/nights").json()
        assert nights["run"] == [night.run for _, night in found] and nights["kept"] == [0] * 37 + [1] * 3
        run = next(night.run for _, night in reversed(found) if night.losses)
        assert f"Report of {run}" in reader.get(f"{base}/retrain_first/runs/{run}/report.html").text
        lost = reader.get(f"{base}/retrain_lost/nights")
        assert lost.status_code == 503 and "no-such-bucket" not in lost.text
        assert "cannot be read at the moment" in reader.get(f"{pages.url}{ROOT}/").text
