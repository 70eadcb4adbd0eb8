"""The buttons on a night's tasks: `evaluate` opens the report, `validate` the Data Docs."""

from typing import Any
from urllib.parse import urlsplit

from airflow.sdk import BaseOperatorLink

from training.run_folder import folder_name


class _Page(BaseOperatorLink):
    """A document of the task's run. Airflow asks for it when the task has ended, also when it failed."""

    name = ""
    document = ""

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        # A path, since the pages are served by the API server that shows the button, wherever that is by then.
        return f"{_root()}/training-health/dags/{ti_key.dag_id}/runs/{folder_name(ti_key.run_id)}/{self.document}"


class ReportLink(_Page):
    name = "Report"
    document = "report.html"


class DataDocsLink(_Page):
    name = "Data Docs"
    document = "data_docs/index.html"


_LINKS: dict[str, list[BaseOperatorLink]] = {"evaluate": [ReportLink()], "validate": [DataDocsLink()]}


def links_of(task_id: str) -> list[BaseOperatorLink]:
    """The links on the task called `task_id`."""
    return _LINKS.get(task_id, [])


def _root() -> str:
    from airflow.sdk.configuration import conf

    return urlsplit(str(conf.get("api", "base_url", fallback="") or "")).path.rstrip("/")
