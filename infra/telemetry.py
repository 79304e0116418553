"""Logs and metrics of the processes."""

import json
import logging
import socket
import sys
import threading
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Protocol
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import msgspec

from feature_store.contracts.addresses import without_passwords
from feature_store.contracts.errors import Unavailable
from feature_store.contracts.tracing import current_id

if TYPE_CHECKING:
    from wsgiref.types import StartResponse

LEVELS = ("debug", "info", "warning", "error")


class Reporting(Protocol):
    """What a process says about itself, asked from another thread."""

    def problem(self) -> str | None:
        """Why it is not to be trusted to work, None if it is."""

    def quarantined(self) -> Sequence[Any]:
        """What it has set aside."""


class Text(logging.Formatter):
    """`2026-01-31T12:00:00.123Z INFO streaming.updater: message`, always one line: what broke a line is escaped. A line
    of a request has `trace_id=...` behind the name. No passwords of URLs."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, an exception's traceback at its end."""
        text = record.getMessage()
        if record.exc_info:
            text = f"{text} {self.formatException(record.exc_info)}"
        text = without_passwords(text).replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n")
        trace = f" trace_id={trace_id}" if (trace_id := current_id()) else ""
        return f"{_time(record)} {record.levelname} {record.name}{trace}: {text}"


class Json(logging.Formatter):
    """One JSON object a line: time, level, logger, message; trace_id of a request's, and exception with a traceback. No
    passwords of URLs."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a JSON object."""
        fields = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": without_passwords(record.getMessage()),
        }
        if trace_id := current_id():
            fields["trace_id"] = trace_id
        if record.exc_info:
            fields["exception"] = without_passwords(self.formatException(record.exc_info))
        return json.dumps(fields)  # which escapes what is no Unicode, too


_FORMATTERS = {"text": Text, "json": Json}


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def log_to_stderr(level: str) -> None:
    """Sends the logs of the process to standard error, from the level on (one of LEVELS), as text."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Text())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("kafka", "httpx", "py4j", "matplotlib"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLogger().level))
    logging.captureWarnings(True)


def form_logs(form: str) -> None:
    """Has the process's logs be text or json from now on."""
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_FORMATTERS[form]())


def tell_failure(words: str) -> None:
    """Says why the process ends: to people, or as a log line where programs read the logs."""
    if any(isinstance(handler.formatter, Json) for handler in logging.getLogger().handlers):
        logging.getLogger("matchloop").error("%s", words)
    else:
        sys.stderr.write(f"matchloop: {without_passwords(words)}\n")


def serve_metrics(host: str, port: int, health: Reporting) -> None:
    """Answers GET /metrics in Prometheus' format, from a thread, and GET /healthz: 200, or 503 with the problem, and
    what is in quarantine. Raises Unavailable if the address is taken."""
    from prometheus_client import make_wsgi_app

    metrics = make_wsgi_app()

    def answer(environ: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/healthz":
            found: Iterable[bytes] = metrics(environ, start_response)
            return found
        problem = health.problem()
        start_response("503 Service Unavailable" if problem else "200 OK", [("Content-Type", "application/json")])
        return [msgspec.json.encode({"problem": problem, "quarantined": health.quarantined()})]

    try:
        family = _Server6 if ":" in host else _Server
        server = make_server(host, port, answer, family, _Silent)
    except OSError as error:
        raise Unavailable(
            f"{host}:{port} cannot be listened on ({error.strerror}). Set telemetry.port, or --metrics-port."
        ) from None
    threading.Thread(target=server.serve_forever, name="telemetry", daemon=True).start()


class _Server(ThreadingMixIn, WSGIServer):
    """One that a slow client does not hold up."""

    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Silent(WSGIRequestHandler):
    """A handler that logs no request."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        """Nothing."""
