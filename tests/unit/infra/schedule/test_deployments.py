"""The same job for clusters: files that their own schedulers read."""

import runpy
import sys
import types
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest
import typer
import yaml

import infra.schedule.calendar as ours
from infra.cli import app
from infra.schedule.calendar import Calendar
from tests.unit.infra.test_cli import commands

FOLDER = Path(ours.__file__).parent
RETRAIN = ["matchloop", "retrain", "--json"]


def test_a_cron_job_runs_a_command_that_there_is() -> None:
    job = yaml.safe_load((FOLDER / "kubernetes.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "CronJob")
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    Calendar(job["spec"]["schedule"])
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    [container] = pod["containers"]
    assert container["command"] == RETRAIN
    mounts, volumes = container["volumeMounts"], pod["volumes"]
    assert {mount["name"] for mount in mounts} == {volume["name"] for volume in volumes}
    assert {"name": "MATCHLOOP_HOME", "value": mounts[0]["mountPath"]} in container["env"]


class Recorded:
    """An operator, or a DAG, as it was made."""

    made: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, **options: Any) -> None:
        self.made.append(options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_a_dag_runs_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, attribute in (("airflow", "DAG"), ("airflow.operators.bash", "BashOperator")):
        module = types.ModuleType(name)
        setattr(module, attribute, Recorded)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "airflow.operators", types.ModuleType("airflow.operators"))
    monkeypatch.setattr(Recorded, "made", [])
    runpy.run_path(str(FOLDER / "airflow_dag.py"))
    dag, operator = Recorded.made
    assert (dag["catchup"], dag["max_active_runs"]) == (False, 1)
    Calendar(dag["schedule"])
    assert operator["bash_command"].split() == RETRAIN
    assert "retrain" in commands(typer.main.get_command(app))
