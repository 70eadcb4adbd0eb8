"""Training health behind FAB's users and roles, as production has them."""

import secrets

import pytest
import requests

from runner.ports import LOCALHOST
from tests.production.cluster import ADMIN
from tests.production.night import DAG

pytestmark = pytest.mark.production
_SECONDS = 60


def token(cluster, user: str, password: str) -> requests.Response:
    body = {"username": user, "password": password}
    return requests.post(f"{cluster.url}/auth/token", json=body, timeout=_SECONDS)


def session(cluster, user: str, password: str) -> requests.Session:
    made = requests.Session()
    made.headers["Authorization"] = f"Bearer {token(cluster, user, password).json()['access_token']}"
    return made


@pytest.fixture(scope="module")
def admin(cluster):
    return session(cluster, ADMIN, cluster.variables["AIRFLOW_ADMIN_PASSWORD"])


def nights(cluster, who: requests.Session) -> requests.Response:
    return who.get(f"{cluster.url}/training-health/dags/{DAG}/nights", timeout=_SECONDS)


def new_user(cluster, admin, role: str) -> requests.Session:
    name, password = f"one_{role.lower()}", secrets.token_urlsafe(16)
    body = {"username": name, "email": f"{name}@{LOCALHOST}", "first_name": "A", "last_name": "B"}
    body |= {"password": password, "roles": [{"name": role}]}
    made = admin.post(f"{cluster.url}/auth/fab/v1/users", json=body, timeout=_SECONDS)
    assert made.ok, made.text
    return session(cluster, name, password)


def test_the_first_user_sees_the_nights(cluster, admin):
    answer = nights(cluster, admin)
    assert answer.status_code == 200
    assert {"run", "outcome", "fit", "served"} <= answer.json().keys()


@pytest.mark.parametrize(("role", "status"), [("Viewer", 200), ("Public", 403)])
def test_the_role_decides_who_sees_them(cluster, admin, role, status):
    assert nights(cluster, new_user(cluster, admin, role)).status_code == status


def test_without_a_session_there_is_nothing(cluster):
    assert nights(cluster, requests.Session()).status_code == 401


def test_the_login_page_lets_a_browser_in(cluster):
    """FAB's own page: its form, its cookies, and from there the plugin's page."""
    browser, form = requests.Session(), f"{cluster.url}/auth/login/"
    page = browser.get(form, timeout=_SECONDS).text
    hidden = page.partition('name="csrf_token"')[2].partition('value="')[2].partition('"')[0]
    body = {"username": ADMIN, "password": cluster.variables["AIRFLOW_ADMIN_PASSWORD"], "csrf_token": hidden}
    browser.post(form, data=body, timeout=_SECONDS)
    assert nights(cluster, browser).status_code == 200
