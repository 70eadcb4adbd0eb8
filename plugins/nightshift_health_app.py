"""The routes of Training health. Each asks who is there before anything else; none writes."""

from typing import Annotated, Any
from urllib.parse import quote

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep, get_user, requires_access_dag
from airflow.models.dag import DagModel
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from nightshift_health_answers import asset, document, guarded, page
from nightshift_health_compare import differing_settings, figures
from nightshift_health_folders import Nights, nights_of, read
from nightshift_health_models import Model, airflow_runs, find_model, find_models
from nightshift_health_nights import as_columns, last_champion
from nightshift_health_runbook import runbook
from starlette.exceptions import HTTPException as AnyHTTPException

_READING = ["GET", "HEAD"]
_EVERY = [*_READING, "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
_TITLES = {401: "Sign in first", 403: "Not yours to see", 404: "Nothing here", 503: "Not at the moment"}
_TEXTS = {
    401: "Training health shows what Airflow shows you, so it has to know who you are.",
    403: "You may not read this DAG's runs. Whoever looks after Airflow can let you.",
    404: "There is no such page.",
}
router = APIRouter()


def app() -> FastAPI:
    """The application that Airflow mounts; nobody gets past `get_user`, not even to learn what exists."""
    built = FastAPI(
        title="Training health",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        dependencies=[Depends(get_user)],
        exception_handlers={AnyHTTPException: _refused},
    )
    built.include_router(router)
    built.middleware("http")(_guard)
    return built


async def _guard(request: Request, call_next: Any) -> Response:
    return guarded(await call_next(request))


def _refused(request: Request, error: Exception) -> Response:
    """A plain sentence; for the page's own requests as JSON."""
    assert isinstance(error, AnyHTTPException)
    status = error.status_code
    own = error.detail if status in (404, 503) and error.detail != "Not Found" else None
    text = own or _TEXTS.get(status, "This cannot be done here.")
    if request.url.path.endswith("/nights"):
        return JSONResponse({"detail": text}, status)
    sign_in = get_auth_manager().get_url_login(next_url=_back(request)) if status == 401 else None
    return page("message", request, status, title=_TITLES.get(status, "Not here"), text=text, links=_sign_in(sign_in))


def _back(request: Request) -> str:
    return quote(request.url.path)


def _sign_in(address: str | None) -> list[tuple[str, str]]:
    return [(address, "Sign in")] if address else []


def readable_model(
    dag_id: str, session: SessionDep, _: Annotated[None, Depends(requires_access_dag("GET", DagAccessEntity.RUN))]
) -> Model:
    """The DAG's model, for those who may read the DAG's runs."""
    model = find_model(dag_id, session)
    if model is None:
        raise HTTPException(404, "This DAG does not retrain a model, so there are no nights to show.")
    return model


ModelDep = Annotated[Model, Depends(readable_model)]


def model_nights(model: ModelDep, session: SessionDep) -> Nights:
    return nights_of(model, airflow_runs(model.dag_id, session))


NightsDep = Annotated[Nights, Depends(model_nights)]


@router.api_route("/", methods=_READING)
def models(request: Request, user: GetUserDep, session: SessionDep) -> Response:
    """The models that the user may read; the only one at once."""
    readable = get_auth_manager().get_authorized_dag_ids(user=user, method="GET", session=session)
    found = [model for model in find_models(readable, session) if _may_read_runs(user, model.dag_id)]
    if len(found) == 1:
        return RedirectResponse(f"{request.scope.get('root_path', '')}/dags/{found[0].dag_id}/")
    return page("models", request, models=[(model, _summary(model, session)) for model in found])


@router.api_route("/dags/{dag_id}", methods=_READING)
@router.api_route("/dags/{dag_id}/", methods=_READING)
def model_page(request: Request, model: ModelDep) -> Response:
    return page("model", request, model=model)


@router.api_route("/dags/{dag_id}/nights", methods=_READING)
def model_data(nights: NightsDep) -> Response:
    return JSONResponse(as_columns(nights.known, nights.kept))


@router.api_route("/dags/{dag_id}/runs/{run}/report.html", methods=_READING)
def report(request: Request, model: ModelDep, run: str, session: SessionDep) -> Response:
    return _document(request, model, run, "report.html", session)


@router.api_route("/dags/{dag_id}/runs/{run}/data_docs/{path:path}", methods=_READING)
def data_docs(request: Request, model: ModelDep, run: str, path: str, session: SessionDep) -> Response:
    return _document(request, model, run, f"data_docs/{path or 'index.html'}", session)


@router.api_route("/dags/{dag_id}/compare", methods=_READING)
def compare(request: Request, model: ModelDep, nights: NightsDep, one: str = "", other: str = "") -> Response:
    known = {night.run: night for night, _ in nights.known}
    if one not in known or other not in known:
        raise HTTPException(404, "Two nights of this model are needed to compare: select them in its table of nights.")
    pair = sorted((known[one], known[other]), key=lambda night: night.began)
    settings = differing_settings(*(_kept(model, night.run, "config.json") for night in pair))
    rows = figures(*pair)
    return page("compare", request, model=model, one=pair[0], other=pair[1], rows=rows, settings=settings)


@router.api_route("/runbook", methods=_READING)
def runbook_page(request: Request) -> Response:
    text = runbook()
    if text is None:
        raise HTTPException(404, "The runbook is not deployed here; it is docs/runbook.md of the repository.")
    return page("runbook", request, text=text)


@router.api_route("/assets/{name}", methods=_READING)
def assets(request: Request, name: str) -> Response:
    return asset(name, request) or _missing()


@router.api_route("/{path:path}", methods=_EVERY)
def anything_else(request: Request, path: str) -> Response:
    """Here, so that a path that does not exist and a method that is not answered are also asked who is there."""
    raise HTTPException(404 if request.method in _READING else 405)


def _document(request: Request, model: Model, run: str, path: str, session: SessionDep) -> Response:
    try:
        return document(read(model, run, path), path) or _missing()
    except HTTPException as error:
        if error.status_code != 404 or path.partition("/")[2] not in ("", "index.html"):
            raise
        return _absent(request, model, run, path, session)


def _absent(request: Request, model: Model, run: str, path: str, session: SessionDep) -> Response:
    """What else there is of a night that has no such document."""
    known = {night.run: (night, run_id) for night, run_id in model_nights(model, session).known}
    if run not in known:
        raise HTTPException(404, "There is no such night.")
    night, run_id = known[run]
    return page("absent", request, 404, model=model, night=night, run_id=run_id, path=path, docs=_has_docs(model, run))


def _has_docs(model: Model, run: str) -> bool:
    return _kept(model, run, "data_docs/index.html") is not None


def _kept(model: Model, run: str, path: str) -> bytes | None:
    try:
        return read(model, run, path)
    except HTTPException:
        return None


def _summary(model: Model, session: SessionDep) -> dict[str, Any] | None:
    """The newest night and champion; None when the model's store cannot be reached, which is no other model's fault."""
    try:
        known = model_nights(model, session).known
    except HTTPException:
        return None
    last = known[-1][0] if known else None
    return {"nights": len(known), "last": last, "champion": last_champion(known)}


def _may_read_runs(user: Any, dag_id: str) -> bool:
    """As `requires_access_dag` asks, for one of several DAGs."""
    details = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id))
    manager = get_auth_manager()
    return bool(manager.is_authorized_dag(method="GET", access_entity=DagAccessEntity.RUN, details=details, user=user))


def _missing() -> Response:
    raise HTTPException(404)
