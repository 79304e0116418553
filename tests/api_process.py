"""The API as a process of its own, for tests."""

import os
import subprocess
import sys
from pathlib import Path

import httpx

from tests.api_server import Installation, wait_until

ROOT = Path(__file__).parents[1]

_SERVE = """
import sys
from pathlib import Path
from feature_store.settings import RedisSettings
from online_serving.config import ServerConfig
from online_serving.server import serve
from online_serving.settings import ServingSettings
from streaming.settings import BanditSettings, KafkaSettings, RewardSettings

home, bootstrap, redis_url, name, port, workers, drain, *own_port = sys.argv[1:]
assert "numpy" not in sys.modules
kafka = KafkaSettings(tick_seconds=0.5, topic_prefix=f"{name}-")
serve(ServerConfig(
    home=Path(home), secret=b"a secret for the tests", bootstrap=bootstrap, redis_url=redis_url,
    kafka=kafka, redis=RedisSettings(prefix=name), bandit=BanditSettings(), rewards=RewardSettings(),
    serving=ServingSettings(port=int(port), workers=int(workers), drain_seconds=float(drain)),
    seed=1,
), *(("127.0.0.1", int(port)) for port in own_port))
foreign = {"torch", "pyspark", "mlflow", "lightning", "matplotlib"} & sys.modules.keys()
print("imported:", sorted(foreign))
"""


def serve_api(
    installation: Installation, port: int, *own: int, workers: int = 1, drain_seconds: float = 0
) -> "subprocess.Popen[str]":
    """Starts a process on a port. own: the port of its probes and metrics."""
    places = [str(installation.home), installation.broker, installation.redis_url, installation.redis_settings.prefix]
    return subprocess.Popen(
        [sys.executable, "-c", _SERVE, *places, *map(str, (port, workers, drain_seconds, *own))],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until_ready(process: "subprocess.Popen[str]", port: int) -> None:
    """Until the process answers at /readyz, or has ended, which fails the test."""

    def ready() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
        except httpx.TransportError:
            return process.poll() is not None

    wait_until(ready)
    assert process.poll() is None, process.stderr and process.stderr.read()
