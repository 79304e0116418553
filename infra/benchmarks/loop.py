"""The loop bench: the demo's figures without its pictures, with the bounds that every run must keep."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from infra.benchmarks.bench import Goal
from infra.demo import EXPERIMENT, VISITS, VISITS_PER_SECOND, run_loop
from infra.demo_home import begin_anew, demo_settings
from infra.settings import load
from infra.stack import Stack
from offline_training.progress import Progress
from offline_training.report.data import figures

DATA_SET = "ml-100k"
_STAGES = 6


def run(data: Path | None, seed: int, progress: Progress) -> tuple[dict[str, Any], list[Goal]]:
    """Runs the loop in a home of its own. data: folder that holds ml-100k; None: it is downloaded."""
    done = 0

    @contextmanager
    def stage(title: str) -> Iterator[Progress]:
        nonlocal done
        yield lambda fraction, message: progress((done + fraction) / _STAGES, f"{title}: {message}")
        done += 1

    with tempfile.TemporaryDirectory(prefix="matchloop-loop-", ignore_cleanup_errors=True) as home:
        given = load()
        training = given.training.model_copy(update={"seed": seed})
        settings = demo_settings(given.model_copy(update={"training": training}), Path(home), EXPERIMENT.testers)
        begin_anew(settings)
        source = None if data is None else data / DATA_SET
        with Stack(settings) as stack:
            report = run_loop(stack, settings, source, VISITS, VISITS_PER_SECOND, stage).report
    measured = figures(report)
    return {"figures": measured, "report": msgspec.to_builtins(report)}, [
        _goal("state_equals_replay", measured["state_equals_replay"], 1.0, "", "higher"),
        _goal("failed_requests", measured["errors"], 0.0, "requests", "lower"),
        _goal("feedback_to_parameters.p50_ms", measured["feedback_to_parameters.p50_ms"], 200.0, "ms", "lower"),
        _goal("feedback_to_parameters.p99_ms", measured["feedback_to_parameters.p99_ms"], 1000.0, "ms", "lower"),
        _goal("item_to_servable.p99_ms", measured["item_to_servable.p99_ms"], 2000.0, "ms", "lower"),
        _goal("total_seconds", sum(report.stage_seconds.values()), 360.0, "s", "lower"),
    ]


def _goal(name: str, value: float, target: float, unit: str, better: Any) -> Goal:
    return Goal(name=name, value=value, target=target, unit=unit, better=better)
