"""Upkeep beside a process of the stack, now and then: a process of its own, whose memory goes when it ends."""

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from infra.leash import leashed

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0


def keep_compact(every_seconds: float, config: Path | None, stop: threading.Event) -> None:
    """Runs `matchloop lake compact` this often until stopped. config: the settings file, where one is named."""
    _keep(["lake", "compact", "--json"], "the lake was not compacted", every_seconds, config, stop)


def keep_reports(every_seconds: float, config: Path | None, stop: threading.Event) -> None:
    """Runs `matchloop experiment report`, of all that run, this often until stopped. config: as above."""
    _keep(["experiment", "report"], "not every report was renewed", every_seconds, config, stop)


def _keep(arguments: list[str], failure: str, every_seconds: float, config: Path | None, stop: threading.Event) -> None:
    """One at a time. One that fails, because a training reads the lake say, comes again with the next."""
    given = [] if config is None else ["--config", str(config)]
    command = [sys.executable, "-m", "infra.cli", *given, *arguments]
    while not stop.wait(every_seconds):
        process = subprocess.Popen(
            leashed(command, os.getpid(), signal.SIGTERM),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        said = None
        while said is None:
            try:
                said = process.communicate(timeout=_LOOK_SECONDS)[1]
            except subprocess.TimeoutExpired:
                if stop.is_set():
                    process.terminate()
        if process.returncode and not stop.is_set():
            _log.warning("%s: %s", failure, said.strip())
