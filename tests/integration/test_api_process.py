"""The API as a process: what it imports, how it ends, what it does when a part of the stack is gone."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from feature_store.contracts.events import Tick, decode
from infra.benchmarks.small_release import items
from infra.servers import free_port
from infra.telemetry import Text
from streaming.kafka import Reader
from tests.api_process import ROOT, serve_api, wait_until_ready
from tests.api_server import Installation, running, wait_until

CATALOGUE = items(30)


@pytest.fixture
def installation(broker: str, redis_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Installation]:
    with Installation(broker, redis_url, tmp_path, request.node.name[:30]) as made:
        made.online.catalogue.add(CATALOGUE)
        made.online.deployment.activate(made.release(CATALOGUE))
        yield made


def test_workers_share_a_port_and_one_that_starts_gets_no_requests_before_it_can_answer(
    installation: Installation,
) -> None:
    shared, *own = (free_port() for _ in range(3))
    workers: list[subprocess.Popen[str]] = []
    statuses: list[int] = []

    def ask() -> None:
        body = {"user_id": f"u{len(statuses)}"}  # on a new connection each time: the kernel chooses who gets it
        statuses.append(httpx.post(f"http://127.0.0.1:{shared}/v1/recommendations", json=body).status_code)

    def second_answers() -> bool:
        ask()
        try:
            return httpx.get(f"http://127.0.0.1:{own[1]}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    try:
        workers.append(serve_api(installation, shared, own[0], workers=2))
        wait_until_ready(workers[0], own[0])
        workers.append(serve_api(installation, shared, own[1], workers=2))
        wait_until(second_answers)
        for _ in range(20):
            ask()
        served = [httpx.get(f"http://127.0.0.1:{port}/metrics").text for port in own]
        assert all('route="/v1/recommendations",status="200"' in text for text in served)
        workers[0].kill()
        workers[0].communicate()
        for _ in range(5):
            ask()
        assert set(statuses) == {200}
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def test_a_served_process_imports_no_training_and_ends_on_sigterm(installation: Installation) -> None:
    port = free_port()
    process = serve_api(installation, port)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=150) as client:
            wait_until_ready(process, port)
            assert client.post("/v1/recommendations", json={"user_id": "u"}).status_code == 200
            process.send_signal(signal.SIGTERM)
            output, errors = process.communicate()
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert output.strip() == "imported: []"  # pyarrow imports pandas where it is installed


def test_told_to_stop_it_says_so_before_it_ends_to_answer(installation: Installation) -> None:
    port, own = free_port(), free_port()
    process = serve_api(installation, port, own, drain_seconds=300)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=150) as client:
            wait_until_ready(process, port)
            process.send_signal(signal.SIGTERM)
            wait_until(lambda: client.get("/readyz").status_code == 503, 60)
            assert client.get("/readyz").json()["problems"] == {"process": "It is stopping."}
            answers = [
                httpx.get(f"http://127.0.0.1:{at}{path}") for at in (port, own) for path in ("/readyz", "/healthz")
            ]
            assert [answer.status_code for answer in answers] == [503, 200, 503, 200]
            body = {"user_id": "u"}  # on a new connection: it listens
            assert httpx.post(f"http://127.0.0.1:{port}/v1/recommendations", json=body, timeout=150).status_code == 200
        process.send_signal(signal.SIGTERM)  # once more: at once
        process.communicate()
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0


@contextlib.contextmanager
def _slow_release(installation: Installation) -> Iterator[Callable[[], object]]:
    """The active release cannot be loaded before the yielded function is called."""
    active = installation.online.deployment.active()
    assert active is not None
    (file,) = (installation.home / "namespaces" / active.namespace).glob("*.json")
    content = file.read_bytes()
    file.unlink()
    os.mkfifo(file)  # whoever opens it waits for a writer
    yield lambda: file.write_bytes(content)
    file.unlink()
    file.write_bytes(content)


def test_while_a_release_loads_it_lives_and_says_so(installation: Installation) -> None:
    port, own = free_port(), free_port()
    with _slow_release(installation) as release:
        process = serve_api(installation, port, own)
        try:
            url = f"http://127.0.0.1:{port}"

            def loads() -> bool:
                with contextlib.suppress(httpx.TransportError):
                    return "is being loaded" in httpx.get(f"{url}/readyz").text
                return False

            wait_until(loads, 120)
            for at in (port, own):
                assert httpx.get(f"http://127.0.0.1:{at}/healthz").status_code == 200
                assert httpx.get(f"http://127.0.0.1:{at}/readyz").json()["loading"] is True
            early = httpx.post(f"{url}/v1/recommendations", json={"user_id": "u"})
            assert early.status_code == 503
            assert "is being loaded" in early.json()["message"]
            assert "Retry-After" in early.headers
            release()
            wait_until_ready(process, port)
        finally:
            process.kill()
            process.communicate()


def test_one_of_several_joins_the_shared_port_when_it_can_answer(installation: Installation) -> None:
    port, own = free_port(), free_port()
    with _slow_release(installation) as release:
        process = serve_api(installation, port, own, workers=2)
        try:

            def status(at: int, path: str) -> int:
                with contextlib.suppress(httpx.TransportError):
                    return httpx.get(f"http://127.0.0.1:{at}{path}").status_code
                return 0

            wait_until(lambda: status(own, "/healthz") == 200, 120)
            assert status(own, "/readyz") == 503
            assert status(port, "/healthz") == 0
            release()
            wait_until(lambda: status(port, "/readyz") == 200, 60)
            assert status(own, "/metrics") == status(own, "/v1/parameters") == 200
            assert status(own, "/v1/items/i1") == 404, "the API's own routes are not where no key is asked for"
            assert "i1" in httpx.get(f"http://127.0.0.1:{port}/v1/items/i1").text
        finally:
            process.kill()
            process.communicate()


def test_what_a_served_process_imports() -> None:
    foreign = "{'torch', 'pyspark', 'mlflow', 'lightning', 'pandas', 'matplotlib'}"
    program = f"import sys, online_serving.app; print(*sorted({foreign} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_quiet_partitions_get_ticks(installation: Installation) -> None:
    with running(installation.config()):
        reader = Reader(installation.broker, installation.kafka.topics.events, {0: 0, 1: 0})
        ticks: set[tuple[int, int]] = set()

        def both_twice() -> bool:
            for record in reader.poll(100):
                (event,) = decode(record.value)
                assert isinstance(event, Tick)
                ticks.add((record.partition, record.offset))
            return all(sum(partition == p for partition, _ in ticks) >= 2 for p in (0, 1))

        wait_until(both_twice)
        reader.close()


def test_without_redis_it_answers_without_user_features_and_logs_in_whose_trace(
    installation: Installation, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.handler.setFormatter(Text())
    trace = "0af7651916cd43dd8448eb211c80319c"
    with running(installation.config()) as api:
        installation.client.shutdown(nosave=True)
        header = {"traceparent": f"00-{trace}-b7ad6b7169203331-00"}
        answer = api.post("/v1/recommendations", json={"user_id": "u"}, headers=header)
        assert answer.status_code == 200
        assert answer.json()["degraded"] == ["user_features", "shown_items"]
        assert len(answer.json()["items"]) == 5
        ready = api.get("/readyz")
        assert ready.status_code == 503
        assert "Redis does not answer" in ready.json()["message"]
        assert api.put("/v1/items/i1", json={}).status_code == 503
    assert f"WARNING online_serving.recommendations trace_id={trace}: answering without user features" in caplog.text
