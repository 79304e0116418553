"""The steps of a training as nested runs of MLflow: when each began, how long it took, what it gave."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

_PARENT = "mlflow.parentRunId"
_LONGEST = 500  # of a parameter's text; all of it is in lineage.json


class StepRun(NamedTuple):
    """One step. output: what it gave, as JSON has it."""

    name: str
    began: int  # ms since the epoch
    seconds: float
    output: Mapping[str, Any]


def log_steps(client: Any, experiment: str, parent: str, steps: Sequence[StepRun]) -> None:
    """Logs each step as a run below the parent: its numbers with a fraction as metrics, everything else as parameters
    (`summary.items` for what is nested), and `seconds`."""
    from mlflow.entities import Metric, Param

    for step in steps:
        run = client.create_run(experiment, start_time=step.began, run_name=step.name, tags={_PARENT: parent})
        end = step.began + int(step.seconds * 1000)
        metrics, parameters = {"seconds": step.seconds}, {}
        for name, value in flat(step.output):
            if isinstance(value, float):
                metrics[name] = value
            elif value is not None:
                parameters[name] = str(value)[:_LONGEST]
        client.log_batch(
            run.info.run_id,
            metrics=[Metric(name, value, end, 0) for name, value in metrics.items() if math.isfinite(value)],
            params=[Param(name, value) for name, value in parameters.items()],
        )
        client.set_terminated(run.info.run_id, end_time=end)


def flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Entries of nested tables by their path: `summary.items`."""
    for name, entry in value.items():
        if isinstance(entry, Mapping):
            yield from flat(entry, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", entry
