"""Training health, a page in Airflow's UI: how each model's nights went. Its parts are imported when it is served."""

from typing import Any

from airflow.plugins_manager import AirflowPlugin

PREFIX = "/training-health"
# Relative to the UI's own <base>, so that they hold wherever Airflow is served.
_HERE = PREFIX.lstrip("/")
_ICONS = {"icon": f"{_HERE}/assets/icon.svg", "icon_dark_mode": f"{_HERE}/assets/icon_dark.svg"}


class TrainingHealth(AirflowPlugin):
    """The page, its entry in the navigation, and a tab on each DAG's page."""

    name = "nightshift_health"
    external_views = [
        {
            "name": "Training health",
            "href": f"{_HERE}/",
            "destination": "nav",
            "nav_top_level": True,
            "url_route": "training-health",
            **_ICONS,
        },
        {
            "name": "Training health",
            "href": f"{_HERE}/dags/{{DAG_ID}}/",
            "destination": "dag",
            "url_route": "training-health-dag",
            **_ICONS,
        },
    ]

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Built only where it is served: every component of Airflow loads this file."""
        from nightshift_health_app import app

        return [{"app": app(), "url_prefix": PREFIX, "name": "Training health"}]
