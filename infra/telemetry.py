"""Logs and metrics of the processes."""

import logging
import sys
from datetime import UTC, datetime

from feature_store.contracts.errors import Unavailable

LEVELS = ("debug", "info", "warning", "error")


class OneLine(logging.Formatter):
    """`2026-01-31T12:00:00.123Z INFO streaming.updater: message`, always one line: what broke a line is escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, an exception's traceback at its end."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        text = record.getMessage()
        if record.exc_info:
            text = f"{text} {self.formatException(record.exc_info)}"
        text = text.replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n")
        return f"{time} {record.levelname} {record.name}: {text}"


def log_to_stderr(level: str) -> None:
    """Sends the logs of the process to standard error, from the level on (one of LEVELS)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("kafka", "httpx", "py4j", "matplotlib"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLogger().level))
    logging.captureWarnings(True)


def serve_metrics(host: str, port: int) -> None:
    """Answers GET /metrics in Prometheus' format, from a thread. Raises Unavailable if the address is taken."""
    from prometheus_client import start_http_server

    try:
        start_http_server(port, addr=host)
    except OSError as error:
        raise Unavailable(
            f"{host}:{port} cannot be listened on ({error.strerror}). Set telemetry.port, or --metrics-port."
        ) from None
