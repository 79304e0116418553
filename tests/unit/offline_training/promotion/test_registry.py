"""What MLflow holds after a run, on its SQLite store."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest

from feature_store.contracts.errors import Unavailable
from feature_store.contracts.manifest import open_release
from feature_store.definitions import features_hash
from offline_training.promotion.registry import Registry
from offline_training.promotion.step_runs import StepRun
from offline_training.promotion.training_plots import training_figures
from offline_training.release.write import write_release
from offline_training.settings import MlflowSettings, TrainingSettings
from offline_training.train_models import Trained
from online_serving.snapshot import Snapshot

_ALONE = """
import json, sys
import mlflow, pandas
sys.path = [path for path in sys.path if "site-packages" in path or "lib/python" in path]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
model = mlflow.pyfunc.load_model(sys.argv[1])
import online_serving
assert "/code/" in online_serving.__file__, online_serving.__file__
answers = model.predict(pandas.DataFrame({"history": json.loads(sys.argv[2])}), params={"slate_size": 3})
print(answers.to_json(orient="records"))
"""


# MLflow's SQL store, which lives in the server otherwise, uses what its libraries are about to drop.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_run_is_recorded_and_crowned(trained: Trained, settings: TrainingSettings, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.create_experiment("matchloop", artifact_location=str(tmp_path / "artifacts"))
    releases = tmp_path / "releases"
    releases.mkdir()
    release = write_release(releases, trained, settings, None, 1)
    manifest = open_release(releases / release, features_hash())
    figures = training_figures(trained, Snapshot.load(releases, release).graph)
    registry = Registry(MlflowSettings(), uri)

    assert registry.alias("champion") is None
    assert registry.follow({"champion": release, "previous": None}) == [release]
    lineage = {"offsets": [3, 4]}
    inputs = {"code": "c0de", "until_ms": None, "lake": {"digest": "1ake"}}
    steps = [
        StepRun("lake", 1_000, 2.5, {"lake": {"files": 3}, "ends": [[["log", 7]]]}),
        StepRun("evaluation", 4_000, 1.0, {"metrics": {"recall": 0.5, "error": None}}),
    ]
    version = registry.record(
        releases / release, manifest, manifest.metrics, figures, [2.0, 1.0], lineage, inputs, steps
    )
    assert registry.follow({"champion": release, "previous": None}, {release: {"gate": "passed"}}) == []

    assert registry.alias("champion") == release
    champion = client.get_model_version_by_alias("matchloop", "champion")
    assert str(champion.version) == version
    assert champion.tags["gate"] == "passed"
    identity = str(champion.run_id)
    run = client.get_run(identity)
    assert run.info.status == "FINISHED"
    assert run.data.params["dimensions"] == "8"
    assert run.data.metrics["ranker_auc"] == pytest.approx(manifest.metrics["ranker_auc"])
    history = client.get_metric_history(identity, "training_loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 2.0), (2, 1.0)]
    logged = {file.path for file in client.list_artifacts(identity)}
    assert logged == {"model", "lineage.json", "training_loss.png", "calibration.png", "graph.png"}
    inside = {Path(file.path).name for file in client.list_artifacts(identity, f"model/artifacts/{release}")}
    assert inside == {"manifest.json", *manifest.files}
    assert (run.data.params["inputs.code"], run.data.params["inputs.lake.digest"]) == ("c0de", "1ake")
    nested = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{identity}'")
    first, second = sorted(nested, key=lambda one: one.info.start_time)
    assert (first.info.run_name, first.info.start_time, first.info.end_time) == ("lake", 1_000, 3_500)
    assert first.data.params == {"lake.files": "3", "ends": "[[['log', 7]]]"}
    assert first.data.metrics == {"seconds": 2.5}
    assert second.data.metrics == {"seconds": 1.0, "metrics.recall": 0.5}
    assert {one.info.status for one in nested} == {"FINISHED"}

    liked = trained.catalogue.items[0]
    answers = _ask("models:/matchloop@champion", [[liked], []], tmp_path, uri)
    assert len(answers) == 2
    assert all(len(set(answer["items"])) == 3 for answer in answers)
    assert liked not in answers[0]["items"]
    assert all(answer["predicted"] == sorted(answer["predicted"], reverse=True) for answer in answers)

    registry.discard(release)
    assert registry.follow({"champion": release}) == [release], "there is no version of it any more"
    assert {file.path for file in client.list_artifacts(identity)} == logged - {"model"}
    assert not list(tmp_path.glob(f"artifacts/**/{release}"))
    assert client.get_run(identity).data.params["dimensions"] == "8", "what it was stays on record"
    registry.discard(release)


def _ask(model: str, histories: list[list[str]], folder: Path, uri: str) -> Any:
    """What the model answers in a process that knows MLflow and nothing of ours."""
    done = subprocess.run(
        [sys.executable, "-c", _ALONE, model, json.dumps(histories)],
        cwd=folder,
        env={**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, "MLFLOW_TRACKING_URI": uri},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_an_mlflow_that_does_not_answer_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(
        Unavailable, match=r"MLflow at http://u:\*\*\*@127\.0\.0\.1:9 did not take the request"
    ) as raised:
        Registry(MlflowSettings(), "http://u:hunter2@127.0.0.1:9").alias("champion")
    assert "hunter2" not in str(raised.value)
