"""``python -m runner run|ui``: one night, or Airflow's pages."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from runner import night, processes
from runner.airflow import USER, password_file, prepared
from training.errors import EXIT_MEANINGS, NightshiftError

CHECKOUT = Path(__file__).resolve().parent.parent
INTERRUPTED = 128 + signal.SIGINT
_MEANINGS = {**EXIT_MEANINGS, INTERRUPTED: "interrupted"}


def main(arguments: list[str]) -> int:
    """Do what was asked; the last line told is ``exit N: meaning``, and N is returned."""
    options = _parser().parse_args(arguments)
    processes.raise_on_signals()
    os.chdir(CHECKOUT)  # what a config names without a leading slash is below the checkout
    code = _guarded(options)
    stopped = options.command == "ui" and code == 0
    night.tell("Airflow: stopped" if stopped else f"exit {code}: {_MEANINGS[code]}")
    return code


def _guarded(options: argparse.Namespace) -> int:
    try:
        if options.command == "ui":
            return _ui()
        return night.run_night(CHECKOUT, options.model, options.set)
    except NightshiftError as error:
        night.tell(error.message)
        if error.remedy:
            night.tell(f"remedy: {error.remedy}")
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED


def _ui() -> int:
    night.tell("Airflow: starting")
    with prepared(CHECKOUT, schedules=True) as airflow:
        night.start(airflow)
        night.tell(f"Airflow:  {airflow.api.url}")
        night.tell(f"user:     {USER}")
        night.tell(f"password: in {password_file(CHECKOUT)}")
        night.tell("Ctrl-C stops it; nightly runs start by the clock for every DAG that is not paused.")
        try:
            while all(process.poll() is None for process in airflow.components.values()):
                time.sleep(1.0)
        except KeyboardInterrupt:
            return 0
    night.tell("Airflow: a component ended; see .airflow/logs")
    return 1


class _Parser(argparse.ArgumentParser):
    """Bad usage is told like every other ending."""

    def error(self, message: str) -> None:  # type: ignore[override]
        night.tell(f"{self.prog}: {message}")
        night.tell(f"exit 2: {EXIT_MEANINGS[2]}")
        sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="runner", description="Nights through a real Airflow in this checkout.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="one night, from trigger to verdict")
    run.add_argument("--model", default="solar_cells", help="a file in dags/models, without .yaml")
    run.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. train.epochs=2; repeatable")
    commands.add_parser("ui", help="Airflow and its pages, until Ctrl-C")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
