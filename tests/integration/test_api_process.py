"""The API as a process: what it imports, how it ends, what it does when a part of the stack is gone."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from feature_store.contracts.events import Tick, decode
from infra.servers import free_port
from streaming.kafka import Reader
from tests.api_server import Installation, running, wait_until
from tests.releases import items

ROOT = Path(__file__).parents[2]
CATALOGUE = items(30)

_SERVE = """
import sys
from pathlib import Path
from feature_store.contracts.experiments import Experiment
from feature_store.settings import RedisSettings
from online_serving.config import ServerConfig
from online_serving.server import serve
from online_serving.settings import ServingSettings
from streaming.settings import BanditSettings, KafkaSettings, RewardSettings

home, bootstrap, redis_url, name, port = sys.argv[1:]
assert "numpy" not in sys.modules
kafka = KafkaSettings(tick_seconds=0.5, events_topic=f"{name}-events", catalogue_topic=f"{name}-catalogue")
serve(ServerConfig(
    home=Path(home), secret=b"a secret for the tests", bootstrap=bootstrap, redis_url=redis_url,
    kafka=kafka, redis=RedisSettings(prefix=name), serving=ServingSettings(port=int(port)), bandit=BanditSettings(),
    rewards=RewardSettings(), experiment=Experiment(), seed=1,
))
foreign = {"torch", "pyspark", "mlflow", "lightning", "pandas", "matplotlib"} & sys.modules.keys()
print("imported:", sorted(foreign))
"""


@pytest.fixture
def installation(broker: str, redis_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Installation]:
    with Installation(broker, redis_url, tmp_path, request.node.name[:30]) as made:
        made.online.put_items(CATALOGUE)
        made.online.activate(made.release(CATALOGUE))
        yield made


def test_a_served_process_imports_no_training_and_ends_on_sigterm(installation: Installation) -> None:
    port = free_port()
    arguments = [str(installation.home), installation.broker, installation.redis_url]
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, *arguments, installation.redis_settings.prefix, str(port)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:

            def ready() -> bool:
                try:
                    return client.get("/readyz").status_code == 200
                except httpx.TransportError:
                    return process.poll() is not None

            wait_until(ready, 30)
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert client.post("/v1/recommendations", json={"user_id": "u"}).status_code == 200
            process.send_signal(signal.SIGTERM)
            output, errors = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode in (0, -signal.SIGTERM)
    assert "Traceback" not in errors
    if process.returncode == 0:
        assert output.strip() == "imported: []"


def test_what_a_served_process_imports() -> None:
    foreign = "{'torch', 'pyspark', 'mlflow', 'lightning', 'pandas', 'matplotlib'}"
    program = f"import sys, online_serving.app; print(*sorted({foreign} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_quiet_partitions_get_ticks(installation: Installation) -> None:
    with running(installation.config()):
        reader = Reader(installation.broker, installation.kafka.events_topic, {0: 0, 1: 0})
        ticks: set[tuple[int, int]] = set()

        def both_twice() -> bool:
            for record in reader.poll(100):
                (event,) = decode(record.value)
                assert isinstance(event, Tick)
                ticks.add((record.partition, record.offset))
            return all(sum(partition == p for partition, _ in ticks) >= 2 for p in (0, 1))

        wait_until(both_twice)
        reader.close()


def test_without_redis_it_answers_without_user_features(installation: Installation) -> None:
    with running(installation.config()) as api:
        installation.client.shutdown(nosave=True)
        answer = api.post("/v1/recommendations", json={"user_id": "u"})
        assert answer.status_code == 200
        assert answer.json()["degraded"] == ["user_features", "shown_items"]
        assert len(answer.json()["items"]) == 5
        ready = api.get("/readyz")
        assert ready.status_code == 503
        assert "Redis does not answer" in ready.json()["message"]
        assert api.put("/v1/items/i1", json={}).status_code == 503
