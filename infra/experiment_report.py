"""Reports of this installation's experiments: written as a page, put into MLflow, renewed while the experiments run."""

import fcntl
from collections.abc import Iterable
from pathlib import Path

import typer

from feature_store.contracts.errors import MatchLoopError, Unavailable
from feature_store.contracts.experiments import Experiment
from feature_store.durable import write_file
from feature_store.rewriting import reading
from infra.connections import mlflow_uri
from infra.notification import telling_of_failures
from infra.settings import Settings
from offline_training.data.lake import catalogue_items
from offline_training.experiment.analysis import ExperimentReport, analyse, with_parts
from offline_training.experiment.codiverted import parts
from offline_training.experiment.outcomes import outcomes
from offline_training.experiment.page import page
from offline_training.experiment.tracking import ExperimentTracking
from streaming.lake_files import event_logs


def page_path(settings: Settings, name: str) -> Path:
    """Where the page of the experiment of this name lies if nobody says otherwise."""
    return settings.home / "experiments" / f"{name}.html"


def write(settings: Settings, experiment: Experiment, path: Path) -> ExperimentReport:
    """The report, of which the page is written to the path. Raises Unavailable if nothing was recommended yet."""
    with reading(settings.layout):
        met = outcomes(settings.layout.lake, recommended(settings), experiment, settings.rewards)
        made = analyse(experiment, met)
        if experiment.unit == "item":
            made = with_parts(made, parts(experiment, met, catalogue_items(settings.layout.lake)))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, page(made).encode())
    return made


def track(settings: Settings, experiment: Experiment, made: ExperimentReport) -> str:
    """Puts a report into MLflow, after any that is on its way there. Returns where it is; raises Unavailable if MLflow
    does not answer."""
    folder = settings.home / "experiments"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the process ends, however it does
        ExperimentTracking(settings.mlflow.experiment, mlflow_uri(settings)).update(experiment, made)
    return f"MLflow: experiment {settings.mlflow.experiment}/{experiment.name}"


def renew(running: Iterable[Experiment], settings: Settings) -> None:
    """Renews reports, the others too where one fails. Tells of each failure; raises Unavailable if there was one."""
    failures = []
    for one in running:
        try:
            with telling_of_failures(settings.notify, str(settings.home)):
                typer.echo(track(settings, one, write(settings, one, page_path(settings, one.name))))
        except MatchLoopError as error:
            failures.append(f"{one.name}: {error}")
    if failures:
        raise Unavailable("Reports were not renewed. " + " ".join(failures))


def recommended(settings: Settings) -> list[str]:
    """The logs with recommendations, by the lake. Raises Unavailable if there is none."""
    lake = settings.layout.lake
    logs = event_logs(lake)
    if not logs:
        raise Unavailable(f"Nothing was recommended yet: the lake {lake} has no events. Run `matchloop up` first.")
    return logs
