"""A scheduled retrain as a process: its memory goes when it ends, and what kills it does not kill the schedule."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from infra.leash import leashed
from infra.schedule.keeper import FAILED, PROMOTED, Result

_STOP_SECONDS = 10.0  # to end in order; killed after that, it goes on from its last step all the same


class _Made(msgspec.Struct):
    release: str
    namespace: str


class RetrainProcess:
    """`matchloop retrain`, begun. What it says is in `retrain.log`."""

    def __init__(self, folder: Path, config: Path | None = None, command: list[str] | None = None) -> None:
        """folder: of the schedule. config: its settings file, where one is named. command: what to run instead."""
        self._printed, self._said = folder / "retrain.json", folder / "retrain.log"
        given = [] if config is None else ["--config", str(config)]
        command = command or [sys.executable, "-m", "infra.cli", *given, "retrain", "--json"]
        with self._printed.open("wb") as printed, self._said.open("wb") as said:
            self._process = subprocess.Popen(
                leashed(command, os.getpid(), signal.SIGTERM), stdin=subprocess.DEVNULL, stdout=printed, stderr=said
            )

    def ended(self) -> Result | None:
        """How it ended, None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        try:
            if code == 0:
                made = msgspec.json.decode(self._printed.read_bytes(), type=_Made)
                return Result(PROMOTED, f"release {made.release} serves, with namespace {made.namespace}")
            lines = self._said.read_text(encoding="utf-8", errors="replace").split("\n")
        except (OSError, msgspec.MsgspecError) as error:
            return Result(FAILED, f"what it said cannot be read: {error}")
        said = [line for line in lines if line.strip()]
        return Result(FAILED, said[-1].removeprefix("matchloop: ") if said else f"it ended with {code}")

    def stop(self) -> None:
        """Interrupts it, and returns when it has ended."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
