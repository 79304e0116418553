"""A training run as a folder: what it is made from, and what each of its steps has given.

    <home>/runs/<id>/run.json          Manifest
    <home>/runs/<id>/steps/<name>.json Step: written when it is done, whole or not at all
    <home>/runs/<id>/end.json          End: the run is over; without it, it goes on when the same is asked for again
    <home>/runs/<id>/...               what steps keep: training sets, weights

A step is a function without arguments whose result is kept. Asked for again it gives what it gave: so a job reads from
top to bottom as if nothing could happen to it, and one that was killed does what it had not done yet.
"""

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec
import redis

from feature_store.contracts.errors import UNREADABLE, InvalidInput, MatchLoopError, ReleaseRefused, Unavailable
from feature_store.durable import write_file

T = TypeVar("T")

PROMOTED, REFUSED, FAILED = "promoted", "refused", "failed"  # outcomes
# What may be otherwise at the next try; anything else would only happen again.
PASSING = (Unavailable, OSError, redis.RedisError)


class Inputs(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is made from beside the lake: with equal ones, a run that was interrupted goes on."""

    job: str  # train or retrain
    until_ms: int | None
    excluded: list[str]  # items, sorted
    settings: str  # digest of all that training reads of them
    seed: int
    code: str  # as code_version has it
    log: str  # id of the event log
    partitions: int
    parent_release: str | None  # what served when it began
    parent_namespace: str | None
    start: str = "scratch"  # what the models began as: settings.Start


class Manifest(msgspec.Struct, frozen=True):
    """What a run says about itself. The release that it makes is as of `created`."""

    id: str
    created: int  # ms since the epoch
    inputs: Inputs


class Step(msgspec.Struct, frozen=True):
    """A step that is done."""

    name: str
    began: int  # ms since the epoch
    seconds: float  # of the try that succeeded
    output: msgspec.Raw


class End(msgspec.Struct, frozen=True):
    """How a run has ended."""

    time: int  # ms since the epoch
    outcome: str
    words: str = ""  # why it was refused, or failed


class Run:
    """A run under way. A context manager: what interrupts it leaves it to be gone on with, whatever else ends it."""

    def __init__(self, folder: Path, check: Callable[[], None] = lambda: None) -> None:
        """check: raises if the job may not go on; asked before each step."""
        self.folder = folder
        self.manifest = read(folder / "run.json", Manifest)
        self._check = check

    def step(self, name: str, output: type[T], work: Callable[[], T]) -> T:
        """What the step of this name gave, or gives now. output: its type, as msgspec reads and writes it."""
        path = self.folder / "steps" / f"{name}.json"
        if not path.exists():
            self._check()
            began, clock = time.time_ns() // 1_000_000, time.monotonic()
            made = msgspec.Raw(msgspec.json.encode(work()))
            done = Step(name, began, time.monotonic() - clock, made)
            write_file(path, msgspec.json.format(msgspec.json.encode(done)))
        return msgspec.json.decode(_step(path).output, type=output)

    def steps(self) -> list[Step]:
        """All that are done, in their order."""
        return sorted(map(_step, (self.folder / "steps").glob("*.json")), key=lambda step: step.began)

    def outputs(self) -> dict[str, Any]:
        """What each of them gave."""
        return {step.name: msgspec.json.decode(step.output) for step in self.steps()}

    @property
    def ended(self) -> End | None:
        """How it ended, None while it has not."""
        try:
            return read(self.folder / "end.json", End)
        except FileNotFoundError:
            return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._end(PROMOTED)
        elif isinstance(error, InvalidInput | ReleaseRefused):
            self._end(REFUSED, str(error))
        elif isinstance(error, Exception) and not isinstance(error, PASSING):
            self._end(FAILED, str(error) if isinstance(error, MatchLoopError) else f"{type(error).__name__}: {error}")

    def _end(self, outcome: str, words: str = "") -> None:
        end = End(time.time_ns() // 1_000_000, outcome, words)
        write_file(self.folder / "end.json", msgspec.json.format(msgspec.json.encode(end)))


def read(path: Path, of: type[T]) -> T:
    """What a file of a run says. Raises FileNotFoundError if it is not there, and InvalidInput if it is damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=of)
    except UNREADABLE as error:
        raise InvalidInput(
            f"{path} is damaged: {error}. Remove it, or the whole run that it is of: what serves does not need it, and "
            "the next training begins anew."
        ) from None


def _step(path: Path) -> Step:
    return read(path, Step)
