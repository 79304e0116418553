"""A retrain beside live traffic: a process of its own, and how fast visits may come around it.

The number of visits is fixed. What depends on the machine is when they come: however long the retrain takes, some are
still there while the next release is swapped in, and some come after.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, Self

import msgspec

from feature_store.contracts.errors import MatchLoopError
from infra.leash import leashed
from offline_training.progress import Progress

_LOOK_SECONDS = 0.2
_SWAP_SECONDS = 600.0
_REPORTED = re.compile(r"\w+ +(\d+)% +(.+)")  # as infra.console.progress prints it where there is no terminal


class Retrain(Protocol):
    """A retrain as traffic sees it."""

    @property
    def seconds(self) -> float:
        """Since it was started."""

    @property
    def done(self) -> bool:
        """Whether its release serves. Raises MatchLoopError if that will never be."""

    def start(self) -> None:
        """Starts it, once."""


class _Made(msgspec.Struct):
    """What `matchloop retrain --json` prints, as far as it matters here."""

    release: str
    metrics: dict[str, float]


Serving = Callable[[], str | None]  # the id of the release that answers are made with; None: unknown


class LiveRetrain:
    """`matchloop retrain` as a scheduler would run it, followed until its release serves. A context manager that ends
    the process."""

    def __init__(
        self,
        environment: dict[str, str],
        home: Path,
        until_ms: int,
        exclude_items: Sequence[str],
        serving: Serving,
    ) -> None:
        """environment: of the process; until_ms, exclude_items: what `retrain` is told to leave out. serving is called
        from a thread."""
        self._environment = environment
        self._until = datetime.fromtimestamp(until_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        self._excluded = home / "run" / "withheld.txt"
        self._excluded.write_text("\n".join(exclude_items), encoding="utf-8")
        self._serving = serving
        self._process: subprocess.Popen[str] | None = None
        self._follower: threading.Thread | None = None
        self._began = 0.0
        self._failure: str | None = None
        self._ending = threading.Event()
        self._metrics: dict[str, float] | None = None
        self.fraction = 0.0  # of its work
        self.message = "release 1 serves"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()
        if self._follower is not None:
            self._follower.join()

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self._began

    @property
    def done(self) -> bool:
        """Whether its release serves. Raises MatchLoopError, with its last words, if that will never be."""
        if self._failure is not None:
            raise MatchLoopError(self._failure)
        return self._metrics is not None

    def start(self) -> None:
        """Starts it, once. Call it from the main thread: the process ends with the thread that started it."""
        if self._process is not None:
            return
        options = ["--until", self._until, "--exclude-items", str(self._excluded)]
        command = [sys.executable, "-m", "infra.cli", "retrain", "--json", *options]
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            leashed(command, os.getpid(), signal.SIGTERM),
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._follower = threading.Thread(target=self._watch, args=(self._process,), daemon=True)
        self._follower.start()

    def result(self, progress: Progress) -> dict[str, float]:
        """Waits until its release serves, and returns the metrics of that. Raises MatchLoopError if it fails."""
        self.start()
        while not self.done:
            progress(self.fraction, self.message)
            self._ending.wait(_LOOK_SECONDS)
        assert self._metrics is not None
        return self._metrics

    def _watch(self, process: "subprocess.Popen[str]") -> None:
        try:
            with process:
                self._follow(process)
        except Exception as error:  # noqa: BLE001 - a thread that ends without a word would have everybody wait for ever
            self._failure = f"The retrain cannot be followed: {error!r}"

    def _follow(self, process: "subprocess.Popen[str]") -> None:
        for line in process.stderr or ():
            if line.strip():
                reported = _REPORTED.fullmatch(line.strip())
                self.message = f"retrain: {reported[2] if reported else line.strip()}"
                self.fraction = int(reported[1]) / 100 if reported else self.fraction
        printed = process.stdout.read() if process.stdout else ""
        if process.wait():
            self._failure = f"The retrain failed: {self.message}"
            return
        made = msgspec.json.decode(printed, type=_Made)
        self.message = "release 2 is being loaded"
        deadline = time.monotonic() + _SWAP_SECONDS
        while self._serving() != made.release:
            if time.monotonic() > deadline:
                self._failure = f"The API did not take over release {made.release} in {_SWAP_SECONDS:.0f} s."
                return
            if self._ending.wait(_LOOK_SECONDS):
                return
        self.fraction, self.message = 1.0, "release 2 serves"
        self._metrics = made.metrics


class Traffic:
    """How many visits a second may come around a retrain, by how many have come.

    At the full pace until `reserve` is reached. From there to `last` only if the new release serves; while it does not,
    the longer the retrain takes, the fewer come: the reserve lasts for some fifty times as long as it took to get
    there. At `last` they wait.
    """

    def __init__(self, visits: int, pace: float, retrain: Retrain) -> None:
        """visits: in all. pace: visits a second."""
        self._pace = pace
        self._retrain = retrain
        self._start, self._reserve, self._last = (share * visits for share in (0.2, 0.7, 0.9))

    def rate(self, begun: int) -> float:
        """Visits a second after so many; 0: none until something changes. Starts the retrain when it is time. Raises
        MatchLoopError if the retrain failed."""
        if begun >= self._start:
            self._retrain.start()
        if begun < self._reserve or self._retrain.done:
            return self._pace
        if begun >= self._last:
            return 0.0
        return min(self._pace, (self._last - self._reserve) / 4 / self._retrain.seconds)
