"""MLflow: what was trained, from what, how good it is, and which release is the champion."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from feature_store.contracts.addresses import without_passwords
from feature_store.contracts.errors import Unavailable
from feature_store.contracts.manifest import Manifest
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

CHAMPION = "champion"
RELEASE_TAG = "release"
UNCOMPARED_TAG = "not_compared_with_champion"  # why
_CHATTER = ("mlflow", "alembic", "git", "urllib3")


class Registry:
    """The tracking server's experiment and registered model. Raises Unavailable if the server does not answer."""

    def __init__(self, settings: MlflowSettings, tracking_uri: str) -> None:
        self._settings, self._uri = settings, tracking_uri

    def record(
        self,
        directory: Path,
        manifest: Manifest,
        metrics: Mapping[str, float],
        figures: Mapping[str, Figure],
        losses: list[float],
        lineage: Mapping[str, Any],
    ) -> str:
        """Logs the run that made the release in `directory` and registers it. Returns the model version.

        The run holds manifest.parameters, the metrics, `training_loss` by epoch, the figures, lineage.json and the
        release itself; the version is tagged with the release id.
        """
        with self._client() as client:
            run = client.create_run(self._experiment(client), run_name=f"train {directory.name}")
            identity = run.info.run_id
            try:
                for name, value in manifest.parameters.items():
                    client.log_param(identity, name, value)
                for name, number in metrics.items():
                    client.log_metric(identity, name, number)
                for epoch, loss in enumerate(losses, start=1):
                    client.log_metric(identity, "training_loss", loss, step=epoch)
                for name, figure in figures.items():
                    client.log_figure(identity, figure, name)
                client.log_dict(identity, dict(lineage), "lineage.json")
                client.log_artifacts(identity, str(directory), "release")
                client.set_tag(identity, RELEASE_TAG, directory.name)
                version = self._register(client, identity, directory.name)
            except BaseException:
                client.set_terminated(identity, "FAILED")
                raise
            client.set_terminated(identity)
            return version

    def set_champion(self, release: str, not_compared: str | None = None) -> None:
        """Gives the alias `champion` to the version of the release, and a tag that says why it was not compared with
        the champion before. Raises Unavailable if it was never registered."""
        with self._client() as client:
            for version in client.search_model_versions(f"name='{self._settings.model}'"):
                if version.tags.get(RELEASE_TAG) == release:
                    if not_compared is not None:
                        client.set_model_version_tag(
                            self._settings.model, version.version, UNCOMPARED_TAG, not_compared
                        )
                    client.set_registered_model_alias(self._settings.model, CHAMPION, version.version)
                    return
        raise Unavailable(f"Release {release} has no version of model {self._settings.model!r}. Register it first.")

    def champion(self) -> str | None:
        """The release id of the champion, None if there is none."""
        from mlflow.exceptions import MlflowException

        with self._client() as client:
            try:
                version = client.get_model_version_by_alias(self._settings.model, CHAMPION)
            except MlflowException as error:
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise
            release: str | None = version.tags.get(RELEASE_TAG)
            return release

    def _experiment(self, client: Any) -> str:
        found = client.get_experiment_by_name(self._settings.experiment)
        identity: str = found.experiment_id if found else client.create_experiment(self._settings.experiment)
        return identity

    def _register(self, client: Any, run: str, release: str) -> str:
        if not client.search_registered_models(f"name='{self._settings.model}'"):
            client.create_registered_model(self._settings.model)
        source = f"{client.get_run(run).info.artifact_uri}/release"
        version = client.create_model_version(self._settings.model, source, run, tags={RELEASE_TAG: release})
        return str(version.version)

    @contextmanager
    def _client(self) -> Iterator[Any]:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        for name in _CHATTER:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
        except MlflowException as error:
            said = without_passwords(f"MLflow at {self._uri} did not take the request: {error}. Is the server up?")
            raise Unavailable(said) from error
