"""The one shape of all benches: what was measured, on what, and which goals were met."""

import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import psutil

from offline_training.progress import Progress


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """A figure and what it should be. `better` says on which side of the target it is met."""

    name: str
    value: float
    target: float
    unit: str
    better: Literal["higher", "lower"]

    @property
    def met(self) -> bool:
        """Whether the value reaches the target; one that is not a number never does."""
        return self.value >= self.target if self.better == "higher" else self.value <= self.target


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a bench."""

    name: str
    commit: str | None  # with "+changes" if the working tree differs from it; None outside a repository
    machine: dict[str, str | int | float]
    seed: int
    seconds: float
    results: dict[str, Any]
    goals: list[Goal]

    @property
    def met(self) -> bool:
        """Whether every goal was met."""
        return all(goal.met for goal in self.goals)

    def as_dict(self) -> dict[str, Any]:
        """What `matchloop bench NAME --json` prints."""
        goals = [
            {"name": g.name, "value": g.value, "target": g.target, "unit": g.unit, "met": g.met} for g in self.goals
        ]
        return {**msgspec.structs.asdict(self), "goals": goals}


Bench = Callable[[Progress], tuple[dict[str, Any], list[Goal]]]


def measure(name: str, seed: int, bench: Bench, progress: Progress) -> Result:
    """Runs a bench, and says on what it ran."""
    started = time.monotonic()
    results, goals = bench(progress)
    return Result(
        name=name,
        commit=commit(),
        machine=machine(),
        seed=seed,
        seconds=time.monotonic() - started,
        results=results,
        goals=goals,
    )


def machine() -> dict[str, str | int | float]:
    """What the figures were measured on."""
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
    }


def commit() -> str | None:
    """The commit of the code that runs."""
    here = Path(__file__).parent
    found = _git(here, "rev-parse", "HEAD")
    return found and found + ("+changes" if _git(here, "status", "--porcelain") else "")


def _git(directory: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(directory), *arguments], capture_output=True, text=True, check=True)  # noqa: S607
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()
