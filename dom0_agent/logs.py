"""The agent's log: one structured line per event, as text or as JSON, on standard error."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TextIO

from dom0_agent.config import LogConfig

_PLAIN = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime", "taskName"}


def set_up(config: LogConfig, stream: TextIO | None = None) -> None:
    """Send the log of all parts to ``stream`` (standard error by default), as the configuration wants it."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if config.format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(config.level.upper())
    logging.getLogger("urllib3").setLevel(logging.WARNING)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in record.__dict__.items() if key not in _PLAIN}


def _utc(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


class TextFormatter(logging.Formatter):
    """``time level logger: message key=value …`` on one line, whatever the message holds."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback follows on lines of its own."""
        message = record.getMessage().replace("\n", "\\n").replace("\r", "\\r")
        extras = "".join(f" {key}={value!s}" for key, value in _fields(record).items())
        line = f"{_utc(record)} {record.levelname.lower()} {record.name}: {message}{extras}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Standard fields first, then what the event carries."""
        entry: dict[str, object] = {
            "time": _utc(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)
