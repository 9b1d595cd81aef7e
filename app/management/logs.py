"""What a served app writes at the terminal: a line for each request, and of the rest what somebody should know."""

import asyncio
import logging
from typing import Any

from app.management.console import Style, console

COLOURS: dict[int, Style] = {2: "green", 3: "dim", 4: "yellow", 5: "red"}


class AccessFormatter(logging.Formatter):
    """08:15:02 200 GET /chat"""

    def __init__(self, datefmt: str, has_colours: bool) -> None:
        super().__init__(datefmt=datefmt)
        console.has_colours = has_colours  # the process that a reload starts has a console of its own

    def format(self, record: logging.LogRecord) -> str:
        _, method, path, _, status = record.args  # type: ignore[misc]
        code = console.paint(str(status), COLOURS.get(int(str(status)) // 100, "bold"))
        return f"{self.formatTime(record, self.datefmt)} {code} {method} {path}"


class CutStreamFilter(logging.Filter):
    """Streams that are still open when the server ends are cut. Their answers are saved, so this is no error."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, asyncio.CancelledError) and "timeout graceful shutdown" not in record.getMessage()


def make_log_config() -> dict[str, Any]:
    """The form of logging.config, as uvicorn wants it; it travels to the process that a reload starts."""
    time = "%H:%M:%S"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"cut_streams": {"()": CutStreamFilter}},
        "formatters": {
            "plain": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s", "datefmt": time},
            "access": {"()": AccessFormatter, "datefmt": time, "has_colours": console.has_colours},
        },
        "handlers": {
            "plain": {"class": "logging.StreamHandler", "formatter": "plain", "filters": ["cut_streams"]},
            "access": {"class": "logging.StreamHandler", "formatter": "access", "stream": "ext://sys.stdout"},
        },
        "root": {"handlers": ["plain"], "level": "WARNING"},
        "loggers": {
            "app": {"level": "INFO"},
            "uvicorn.access": {"handlers": ["access"], "level": "INFO", "propagate": False},
        },
    }
