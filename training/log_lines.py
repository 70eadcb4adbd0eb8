"""What log lines of the command line look like: words for people, or JSON for what collects logs."""

import json
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

from training.errors import ConfigError, received

VARIABLE = "NIGHTSHIFT_LOG_FORMAT"


def set_up_logging(**known: str | None) -> None:
    """Log to standard output, as the environment's NIGHTSHIFT_LOG_FORMAT says: ``text``, the default, or ``json``.

    Args:
        known: what every JSON line says besides, such as the run.

    Raises:
        ConfigError: the variable has another value.
    """
    wanted = os.environ.get(VARIABLE) or "text"
    if wanted not in ("text", "json"):
        raise ConfigError(received(VARIABLE, wanted, "text or json"))
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines(known) if wanted == "json" else logging.Formatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("training").setLevel(logging.INFO)


class JsonLines(logging.Formatter):
    """One JSON object a line, with the keys of Airflow's own: timestamp, level, logger, event."""

    def __init__(self, known: Mapping[str, str | None]) -> None:
        super().__init__()
        self.known = {name: value for name, value in known.items() if value is not None}

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **self.known,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
