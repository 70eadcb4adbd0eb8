"""What goes wrong around a night rather than in it."""

from training.errors import NightshiftError


class RunnerError(NightshiftError):
    """Airflow could not be started, reached or used."""

    code = "runner"


class Busy(NightshiftError):
    """Another runner is at work in this checkout."""

    exit_code = 2
    code = "busy"
