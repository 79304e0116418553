"""What the dashboard of the API shows of the installation beside what the API itself knows."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from feature_store.contracts.errors import Unavailable
from infra import servers
from infra.leash import leashed
from infra.programs import reachable
from infra.settings import Settings
from infra.stack import Stack
from infra.status import running, schedule
from online_serving.audit import newest

_ENTRIES = 20  # of the audit log
_RENEWED_SECONDS = 60.0
_PRIORITY = 10  # a process that answers requests goes before

Sample = tuple[str, dict[str, str], float]


class Dashboard:
    """Asked whenever somebody looks. `matchloop overview`, which reads the lake, is a process of its own meanwhile."""

    def __init__(self, settings: Settings, config: Path | None) -> None:
        """config: the settings file, where one is named."""
        self._settings = settings
        given = [] if config is None else ["--config", str(config)]
        self._command = [sys.executable, "-m", "infra.cli", *given, "overview", "--json"]
        self._process: subprocess.Popen[str] | None = None
        self._asked_at = -_RENEWED_SECONDS
        self._overview: dict[str, Any] | None = None
        self._problem: str | None = None

    def __call__(self) -> dict[str, Any]:
        """What runs, and of a schedule the last retrain and the next; what each process tells Prometheus, by program,
        nothing of one that does not answer; who changed what; and the newest overview, None: there was none yet."""
        self._renew()
        found = running(Stack(self._settings)) | {"schedule": schedule(self._settings)}
        host = reachable(self._settings.telemetry.host)
        found["metrics"] = {program["name"]: _samples(host, program["port"]) for program in found["programs"]}
        found["audit"] = newest(self._settings.home, _ENTRIES)
        found |= {"overview": self._overview, "no_overview": self._problem}
        content: dict[str, Any] = msgspec.to_builtins(found, enc_hook=str)
        return content

    def _renew(self) -> None:
        """Takes what a process has said, and starts the next when it is time."""
        if self._process is None:
            if time.monotonic() >= self._asked_at + _RENEWED_SECONDS:
                self._asked_at, self._process = time.monotonic(), self._start()
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            said, wrong = self._process.communicate(timeout=0.01)
            failed, self._process = self._process.returncode != 0, None
            self._problem = wrong.strip() if failed else None
            self._overview = self._overview if failed else json.loads(said)

    def _start(self) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            leashed(self._command, os.getpid(), signal.SIGKILL),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with contextlib.suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, process.pid, _PRIORITY)
        return process


def _samples(host: str, port: int) -> list[Sample]:
    try:
        text = servers.metrics(host, port)
    except (OSError, Unavailable):
        return []
    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        if family.name.startswith("matchloop_")
        for sample in family.samples
        if not sample.name.endswith("_created")
    ]
