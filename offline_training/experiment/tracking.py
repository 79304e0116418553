"""An experiment in MLflow: an MLflow experiment of its own, a run per variant, brought up to date with each report."""

import math
from collections.abc import Iterator
from typing import Any

import msgspec

from feature_store.contracts.experiments import Experiment, Status
from offline_training.experiment.analysis import ExperimentReport, Look
from offline_training.experiment.page import figures, page
from offline_training.promotion.registry import mlflow_client

_VARIANT = "variant"
_NOTE = "mlflow.note.content"  # what MLflow shows above the runs
_AT_ONCE = 1_000  # metrics in a batch


class ExperimentTracking:
    """The tracking server's experiments NAME/EXPERIMENT. Raises Unavailable if it does not answer."""

    def __init__(self, name: str, tracking_uri: str) -> None:
        """name: before the experiments' own, mlflow.experiment of the settings."""
        self._name, self._uri = name, tracking_uri

    def update(self, experiment: Experiment, report: ExperimentReport) -> str:
        """Writes what is known now; the same report again changes nothing. Returns the MLflow experiment's id.

        Of each variant: its overrides as parameters, every metric over time and as of now with its bounds, the plots,
        report.json and report.html. The verdict stands above the runs. Runs end when the experiment is stopped.
        """
        with mlflow_client(self._uri) as client:
            identity = self._experiment(client, experiment)
            client.set_experiment_tag(identity, _NOTE, _note(experiment, report))
            client.set_experiment_tag(identity, "verdict", report.verdict.answer.value)
            runs = {run.data.tags.get(_VARIANT): run for run in client.search_runs([identity], max_results=1_000)}
            html, drawn = page(report), figures(report)
            for variant in experiment.variants:
                run = runs.get(variant.name) or self._begin(client, identity, experiment, variant.name)
                self._log(client, run, report, variant.name)
                client.log_text(run.info.run_id, html, "report.html")
                client.log_text(run.info.run_id, msgspec.json.encode(report).decode(), "report.json")
                for name, figure in drawn.items():
                    client.log_figure(run.info.run_id, figure, name)
                if experiment.status is Status.STOPPED and run.info.status == "RUNNING":
                    client.set_terminated(run.info.run_id, end_time=experiment.stopped)
            return identity

    def _experiment(self, client: Any, experiment: Experiment) -> str:
        name = f"{self._name}/{experiment.name}"
        found = client.get_experiment_by_name(name)
        identity: str = found.experiment_id if found else client.create_experiment(name)
        return identity

    def _begin(self, client: Any, identity: str, experiment: Experiment, name: str) -> Any:
        variant = next(one for one in experiment.variants if one.name == name)
        kind = "control" if name == experiment.control else "treatment"
        run = client.create_run(
            identity, start_time=experiment.started, run_name=name, tags={_VARIANT: name, "arm": kind}
        )
        changes = {"release": variant.release} if variant.release is not None else {}
        for section in ("serving", "bandit"):
            changes |= {f"{section}.{key}": value for key, value in getattr(variant, section).items()}
        for key, value in {"share": experiment.shares()[name], **changes}.items():
            client.log_param(run.info.run_id, key, str(value)[:500])
        return run

    def _log(self, client: Any, run: Any, report: ExperimentReport, variant: str) -> None:
        from mlflow.entities import Metric

        last = max((one.timestamp for one in client.get_metric_history(run.info.run_id, "users")), default=-1)
        metrics = []
        for look in report.looks:
            if look.variant == variant and look.time > last:
                metrics += [Metric(name, value, look.time, look.users) for name, value in _of_look(look)]
        if report.time > last:
            for one in report.metrics:
                now = {}
                for figure in one.figures:
                    if figure.variant == variant:
                        now[one.name] = figure.value.value
                for effect in one.effects:
                    if effect.variant == variant:
                        now[f"{one.name}.p"] = effect.p_value
                        now[f"{one.name}.variance_removed"] = effect.variance_removed
                metrics += [Metric(f"now.{key}", value, report.time, 0) for key, value in now.items()]
            for corpus in report.corpus:
                if corpus.variant == variant:
                    metrics.append(Metric("now.items_shown", corpus.shown.value, report.time, 0))
                    metrics.append(Metric("now.items_discoverable", corpus.discoverable.value, report.time, 0))
            metrics.append(Metric("users", report.sample_ratio.observed[variant], report.time, 0))
        usable = [one for one in metrics if math.isfinite(one.value)]
        for start in range(0, len(usable), _AT_ONCE):
            client.log_batch(run.info.run_id, metrics=usable[start : start + _AT_ONCE])


def _of_look(look: Look) -> Iterator[tuple[str, float]]:
    yield look.metric, look.value
    if look.effect is not None:
        yield f"{look.metric}.change", look.effect.value
        for bound, value in (("low", look.effect.low), ("high", look.effect.high)):
            if value is not None:
                yield f"{look.metric}.change.{bound}", value


def _note(experiment: Experiment, report: ExperimentReport) -> str:
    return (
        f"**{report.verdict.sentence}**\n\n{experiment.hypothesis}\n\n{report.users:,} users, "
        f"{report.planned_users:,} planned; {experiment.share:.1%} of layer `{experiment.layer}`; "
        f"{experiment.status}.\n\nEach run is a variant; `report.html` is among its artifacts."
    )
