"""The lake's upkeep beside the sink: a process of its own, whose memory goes when it ends."""

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
    """Runs `matchloop lake compact` this often until stopped. One that fails, because a training reads the lake say,
    comes again with the next. config: the settings file, where one is named."""
    given = [] if config is None else ["--config", str(config)]
    command = [sys.executable, "-m", "infra.cli", *given, "lake", "compact", "--json"]
    while not stop.wait(every_seconds):
        process = subprocess.Popen(
            leashed(command, os.getpid(), signal.SIGTERM),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        while process.poll() is None:
            if stop.wait(_LOOK_SECONDS):
                process.terminate()
        _, said = process.communicate()
        if process.returncode:
            _log.warning("the lake was not compacted: %s", said.strip())
