"""MLflow: what was trained, from what, how good it is, and which release is the champion."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from feature_store.contracts.addresses import without_passwords
from feature_store.contracts.errors import Unavailable
from feature_store.contracts.manifest import Manifest
from offline_training.promotion.mlflow_model import mlflow_model
from offline_training.promotion.step_runs import StepRun, flat, log_steps
from offline_training.settings import MlflowSettings

# MLflow reads these when it is imported, which takes seconds: hence the imports inside functions.
for _name, _value in {
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}.items():
    os.environ.setdefault(_name, _value)

RELEASE_TAG = "release"
_MODEL = "model"  # artifact of a run: the release as MLflow loads it
_CHATTER = ("mlflow", "alembic", "git", "urllib3")


class Registry:
    """The tracking server's experiment and registered model. Raises Unavailable if the server does not answer."""

    def __init__(self, settings: MlflowSettings, tracking_uri: str | None) -> None:
        """tracking_uri: None if no server runs; then it does not answer."""
        self._settings, self._uri = settings, tracking_uri

    def record(
        self,
        directory: Path,
        manifest: Manifest,
        metrics: Mapping[str, float],
        figures: Mapping[str, Figure],
        losses: list[float],
        lineage: Mapping[str, Any],
        inputs: Mapping[str, Any] | None = None,
        steps: Sequence[StepRun] = (),
    ) -> str:
        """Logs the run that made the release in `directory` and registers it. Returns the model version.

        The run holds manifest.parameters, the metrics, `training_loss` by epoch, the figures, lineage.json and the
        release as a model (mlflow_model.py); the version is tagged with the release id. inputs: from what it was made,
        as parameters `inputs.NAME`. steps: the runs nested in it.
        """
        with mlflow_client(self._uri) as client:
            run = client.create_run(self._experiment(client), run_name=f"train {directory.name}")
            identity = run.info.run_id
            try:
                made_from = flat(inputs or {}, "inputs.")
                for name, value in [*manifest.parameters.items(), *made_from]:
                    client.log_param(identity, name, value)
                for name, number in metrics.items():
                    client.log_metric(identity, name, number)
                for epoch, loss in enumerate(losses, start=1):
                    client.log_metric(identity, "training_loss", loss, step=epoch)
                for name, figure in figures.items():
                    client.log_figure(identity, figure, name)
                client.log_dict(identity, dict(lineage), "lineage.json")
                client.set_tag(identity, RELEASE_TAG, directory.name)
                with mlflow_model(directory) as model:
                    client.log_artifacts(identity, str(model), _MODEL)
                log_steps(client, run.info.experiment_id, identity, steps)
                version = self._register(client, identity, directory.name)
            except BaseException:
                client.set_terminated(identity, "FAILED")
                raise
            client.set_terminated(identity)
            return version

    def follow(
        self, aliases: Mapping[str, str | None], tags: Mapping[str, Mapping[str, str]] | None = None
    ) -> list[str]:
        """Gives each alias to the newest version of its release, and takes it away where that is None. tags: by
        release, of its version. Returns the releases that have no version."""
        with mlflow_client(self._uri) as client:
            versions = self._versions(client)
            held = self._held(client)
            for alias, release in aliases.items():
                version = versions.get(release)
                if version is None and alias in held:
                    client.delete_registered_model_alias(self._settings.model, alias)
                elif version is not None and held.get(alias) != str(version.version):
                    client.set_registered_model_alias(self._settings.model, alias, version.version)
            for release, texts in (tags or {}).items():
                if (version := versions.get(release)) is not None:
                    for name, text in texts.items():
                        client.set_model_version_tag(self._settings.model, version.version, name, text)
            return sorted({release for release in aliases.values() if release is not None and release not in versions})

    def attach(self, release: str, texts: Mapping[str, str]) -> None:
        """Puts files beside the model in the run that made the release's newest version, if it has one."""
        with mlflow_client(self._uri) as client:
            version = self._versions(client).get(release)
            if version is not None and version.run_id:
                for name, text in texts.items():
                    client.log_text(version.run_id, text, name)

    def discard(self, release: str) -> None:
        """Removes the versions of a release, and the copies of it in the runs that made it. What these say stays."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        with mlflow_client(self._uri) as client:
            found = client.search_runs([self._experiment(client)], f"tags.{RELEASE_TAG} = '{release}'")
            for uri in (run.info.artifact_uri for run in found):
                copies: Any = get_artifact_repository(uri, self._uri, self._uri)
                copies.delete_artifacts(_MODEL)
            for version in client.search_model_versions(f"name='{self._settings.model}'"):
                if version.tags.get(RELEASE_TAG) == release:
                    client.delete_model_version(self._settings.model, version.version)

    def alias(self, name: str) -> str | None:
        """The release that has an alias, None if none has."""
        with mlflow_client(self._uri) as client:
            number = self._held(client).get(name)
            if number is None:
                return None
            release: str | None = client.get_model_version(self._settings.model, number).tags.get(RELEASE_TAG)
            return release

    def _versions(self, client: Any) -> dict[str | None, Any]:
        """The newest version of each release."""
        found = client.search_model_versions(f"name='{self._settings.model}'")
        return {one.tags.get(RELEASE_TAG): one for one in sorted(found, key=lambda one: int(one.version))}

    def _held(self, client: Any) -> dict[str, str]:
        """The version that each alias is of."""
        models = client.search_registered_models(f"name='{self._settings.model}'")
        return {alias: str(number) for model in models for alias, number in model.aliases.items()}

    def _experiment(self, client: Any) -> str:
        found = client.get_experiment_by_name(self._settings.experiment)
        identity: str = found.experiment_id if found else client.create_experiment(self._settings.experiment)
        return identity

    def _register(self, client: Any, run: str, release: str) -> str:
        if not client.search_registered_models(f"name='{self._settings.model}'"):
            client.create_registered_model(self._settings.model)
        source = f"{client.get_run(run).info.artifact_uri}/{_MODEL}"
        version = client.create_model_version(self._settings.model, source, run, tags={RELEASE_TAG: release})
        return str(version.version)


@contextmanager
def mlflow_client(uri: str | None) -> Iterator[Any]:
    """A client of the tracking server. uri: None if no server runs. Raises Unavailable if it does not answer."""
    if uri is None:
        raise Unavailable(
            "No MLflow is running in this home directory. Start the stack with `matchloop up`, or set "
            "MLFLOW_TRACKING_URI."
        )
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    for name in _CHATTER:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield MlflowClient(tracking_uri=uri, registry_uri=uri)
    except MlflowException as error:
        said = without_passwords(f"MLflow at {uri} did not take the request: {error}. Is the server up?")
        raise Unavailable(said) from error
