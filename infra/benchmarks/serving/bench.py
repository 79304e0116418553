"""What a recommendation costs an API process, and how that grows with the catalogue.

One API process on a core of its own; embedded broker and Redis, and a process that asks, on the others. Generated
releases of each size, from one generator: vectors in groups, three edges for each item, item lists, histories of 20 to
50 events in which few items are met by many, models of the shipped form. The settings are those that are shipped, with
slates of 20. Neither updater nor sink runs: on two cores they would take theirs from the broker.

In the same run, on the same core, in turns with it: a bare FastAPI application that decodes the body and encodes the
same answer with orjson. By CPU time the two compare even where the process that asks, or others on the machine, hold
the bare endpoint up. What a process reaches is counted with 16 connections that ask again at once; its times are
taken at 70 % of that, with requests due at fixed times.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import psutil

from feature_store.contracts.errors import InvalidInput, Unavailable
from feature_store.contracts.identity import Keyring
from feature_store.definitions import HistoryEvent
from feature_store.online.store import OnlineStore
from feature_store.user_features import UserRecord
from infra import servers
from infra.benchmarks.bench import Goal
from infra.benchmarks.large_release import Installation, Kind, publish
from infra.benchmarks.serving.api import Sample
from infra.benchmarks.serving.load import Load, Measured
from infra.benchmarks.serving.models import skewed, write_models
from infra.benchmarks.serving.picture import draw
from infra.connections import redis_client
from infra.leash import leashed
from infra.programs import BROKER, REDIS
from infra.settings import Settings, load
from infra.stack import Stack
from offline_training.progress import Progress, section
from offline_training.simulation.client import Client, Failure

FEWEST_ITEMS = 1_000
SLATE_SIZE = 20
_USERS = 20_000
_HISTORY = (20, 50)
_EVENT_MS = 3_600_000
_CONNECTIONS = 16
_OTHERS = (1, 4, 64)  # numbers of connections, for how many answers are logged
_SHARE = 0.7  # of what it reaches, for its times
_ROUNDS = 3
_TAKEN = (200, 503)  # statuses of a process that answers, or says that it has enough to do
_LOADED_SECONDS = 300.0
_LOOK_SECONDS = 0.1
_END_SECONDS = 60.0


class Window(NamedTuple):
    """One load, and what it cost the process that answered."""

    measured: Measured
    begin: float  # monotonic
    end: float
    cpu: float  # seconds

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.measured.answered / self.measured.seconds

    @property
    def cpu_ms(self) -> float:
        """For an answer."""
        return self.cpu / self.measured.answered * 1000


def run(
    seed: int, progress: Progress, *, sizes: str, seconds: float, picture: Path | None = None
) -> tuple[dict[str, Any], list[Goal]]:
    """Measures each size, each load for `seconds`. picture: where to draw what takes the time. Raises InvalidInput for
    sizes that are none, or on a machine with one core."""
    counts = _sizes(sizes)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise InvalidInput("This bench needs two cores: one for the API process, and one for all else.")
    os.sched_setaffinity(0, cores[1:])  # the servers inherit it
    try:
        found = {
            str(count): _measure(
                count, cores[0], seed, seconds, section(progress, n / len(counts), (n + 1) / len(counts))
            )
            for n, count in enumerate(counts)
        }
    finally:
        os.sched_setaffinity(0, cores)
    if picture is not None:
        picture.write_text(draw({name: one["cpu_ms_by_part"] for name, one in found.items()}))
    results = {"sizes": found, "growth_of_cpu_per_decade": _growth(found)}
    return results, _goals(results)


def rows(results: dict[str, Any]) -> list[list[str]]:
    """What is spent on each part, for each size, and beneath it what is reached."""
    sizes = results["sizes"]
    parts = list(dict.fromkeys(part for one in sizes.values() for part in one["cpu_ms_by_part"]))
    table = [["CPU per request, ms", *(f"{int(name):,} items" for name in sizes)]]
    table += [[part, *(f"{one['cpu_ms_by_part'].get(part, 0.0):.3f}" for one in sizes.values())] for part in parts]
    lines: dict[str, Callable[[dict[str, Any]], str]] = {
        "all": lambda one: f"{one['cpu_ms']:.2f}",
        "requests/s": lambda one: f"{one['requests_per_second']:.0f}",
        "of the bare endpoint's": lambda one: f"{one['ratio']:.1%}",
        "of it by CPU": lambda one: f"{one['cpu_ratio']:.1%}",
        "logged": lambda one: f"{one['logged']:.2%}",
        "p50 / p99 at 70 %, ms": lambda one: f"{one['at_70_percent']['p50']:.1f} / {one['at_70_percent']['p99']:.1f}",
        "memory, MB": lambda one: f"{one['memory_mb']:.0f}",
    }
    return table + [[name, *(value(one) for one in sizes.values())] for name, value in lines.items()]


def _sizes(text: str) -> list[int]:
    try:
        counts = sorted({int(size) for size in text.split(",")})
    except ValueError:
        raise InvalidInput(f"--items {text!r} is no list of numbers. Say --items 10000,100000.") from None
    if counts[0] < FEWEST_ITEMS:
        raise InvalidInput(f"--items {counts[0]} are too few for a graph, it takes {FEWEST_ITEMS:,} at least.")
    return counts


def _measure(items: int, core: int, seed: int, seconds: float, progress: Progress) -> dict[str, Any]:
    values = load().revealed()
    values["kafka"] |= {"bootstrap": None, "partitions": 2}
    values["redis"]["url"] = None
    values["serving"] |= {"api_key": None, "host": servers.LOOPBACK, "workers": 1, "drain_seconds": 0.0}
    with tempfile.TemporaryDirectory(prefix="matchloop-serving-", ignore_cleanup_errors=True) as home:
        values["home"], values["lake"]["url"] = home, None
        with Stack(Settings(**values)) as stack:
            stack.start(BROKER, REDIS, progress=section(progress, 0.0, 0.05))
            progress(0.05, f"making a release of {items:,} items")
            training = stack.settings.training
            kind = Kind(
                training.active_clusters, training.history_length,
                lambda directory: write_models(directory, items, training, seed),
            )  # fmt: skip
            installed = publish(stack.settings, items, seed, kind)
            _publish_users(stack.settings, installed, seed)
            progress(0.4, f"loading {items:,} items")
            report, began = Path(home) / "samples.json", time.monotonic()
            with _api(stack, core, report) as (port, process):
                asyncio.run(_serves(port, process))
                loaded = time.monotonic() - began
                windows = _loads(port, process, core, Path(home), seed, seconds, section(progress, 0.5, 1.0))
                memory = psutil.Process(process.pid).memory_full_info().pss / 1e6
            samples = msgspec.json.decode(report.read_bytes(), type=list[Sample])
    return {"edges": installed.graph.n_edges, "load_seconds": loaded, "memory_mb": memory, **_summary(windows, samples)}


def _publish_users(settings: Settings, installed: Installation, seed: int) -> None:
    rng, keyring, items = np.random.default_rng(seed), Keyring(settings.secret_bytes()), installed.graph.items
    now = int(time.time() * 1000)

    def record(number: int) -> UserRecord:
        met = skewed(rng, len(items), (int(rng.integers(*_HISTORY, endpoint=True)),)).tolist()
        history = [HistoryEvent(items[j], "rating+", now - place * _EVENT_MS) for place, j in enumerate(met)]
        return UserRecord(keyring.user_key(f"user-{number}"), ["country=nz"], now, history, [])

    with redis_client(settings) as client:
        OnlineStore(client, settings.redis).users.put(record(number) for number in range(_USERS))


def _loads(
    port: int, process: "subprocess.Popen[bytes]", core: int, home: Path, seed: int, seconds: float, progress: Progress
) -> dict[str, list[Window]]:
    def ask(of: int, pid: int, connections: int, rate: float | None = None, lasting: float = seconds) -> Window:
        wanted = Load(of, lasting, connections, _USERS, SLATE_SIZE, seed, rate)
        return _asked(wanted, psutil.Process(pid))

    progress(0.0, "warming up")
    ask(port, process.pid, _CONNECTIONS, lasting=min(seconds, 5.0))
    answer = home / "answer.json"
    answer.write_bytes(_one_answer(port))
    found: dict[str, list[Window]] = {"bare": [], "full": []}
    with _bare(core, answer) as (bare_port, bare):
        for number in range(_ROUNDS):
            progress(0.1 + 0.15 * number, "in turns with the bare endpoint")
            found["bare"].append(ask(bare_port, bare.pid, _CONNECTIONS))
            found["full"].append(ask(port, process.pid, _CONNECTIONS))
    rate = float(np.median([window.rate for window in found["full"]]))
    progress(0.6, "at 70 %")
    found["70 %"] = [ask(port, process.pid, _CONNECTIONS * 4, _SHARE * rate)]
    for number, connections in enumerate(_OTHERS):
        progress(0.7 + 0.1 * number, f"with {connections} connections")
        found[str(connections)] = [ask(port, process.pid, connections)]
    return found


def _asked(wanted: Load, answering: psutil.Process) -> Window:
    before, begin = answering.cpu_times(), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "infra.benchmarks.serving.load"],
        input=msgspec.json.encode(wanted),
        stdout=subprocess.PIPE,
        check=True,
    )
    after, end = answering.cpu_times(), time.monotonic()
    cpu = after.user + after.system - before.user - before.system
    return Window(msgspec.json.decode(done.stdout, type=Measured), begin, end, cpu)


def _summary(windows: dict[str, list[Window]], samples: list[Sample]) -> dict[str, Any]:
    full, bare = windows["full"], windows["bare"]
    rate, bare_rate = (float(np.median([window.rate for window in some])) for some in (full, bare))
    cpu, bare_cpu = (float(np.median([window.cpu_ms for window in some])) for some in (full, bare))
    timed = windows["70 %"][0].measured
    return {
        "requests_per_second": rate,
        "bare_requests_per_second": bare_rate,
        "ratio": rate / bare_rate,
        "cpu_ms": cpu,
        "bare_cpu_ms": bare_cpu,
        "cpu_ratio": bare_cpu / cpu,
        "logged": _logged(full),
        "logged_by_connections": {name: _logged(windows[name]) for name in map(str, _OTHERS)},
        "by_connections": {
            name: {"requests_per_second": some[0].rate, "p50": some[0].measured.p50, "p99": some[0].measured.p99,
                   "cpu_ms": some[0].cpu_ms, "refused": some[0].measured.statuses.get(503, 0)}
            for name, some in windows.items() if name in map(str, _OTHERS)
        },
        "at_70_percent": {
            "p50": timed.p50, "p90": timed.p90, "p99": timed.p99, "logged": timed.logged / timed.answered,
        },
        "failures": sum(
            count
            for some in windows.values()
            for window in some
            for status, count in window.measured.statuses.items()
            if status not in _TAKEN
        ),
        "cpu_ms_by_part": _by_part(full, samples),
    }  # fmt: skip


def _logged(windows: list[Window]) -> float:
    return sum(window.measured.logged for window in windows) / sum(window.measured.answered for window in windows)


def _by_part(windows: list[Window], samples: list[Sample]) -> dict[str, float]:
    """CPU time of an answer in ms, by part, most first; what other threads took is a part."""
    answered = sum(window.measured.answered for window in windows)
    seconds: dict[str, float] = {}
    for sample in samples:
        if any(window.begin <= sample.at < window.end for window in windows):
            seconds[sample.part] = seconds.get(sample.part, 0.0) + sample.cpu
    seconds["other threads"] = max(0.0, sum(window.cpu for window in windows) - sum(seconds.values()))
    return {part: s / answered * 1000 for part, s in sorted(seconds.items(), key=lambda one: -one[1])}


def _growth(found: dict[str, dict[str, Any]]) -> float | None:
    """By what a request's CPU time is multiplied when the items are ten times as many; None for one size."""
    sizes = list(found)
    if len(sizes) < 2:
        return None
    decades = np.log10(int(sizes[-1]) / int(sizes[0]))
    return float((found[sizes[-1]]["cpu_ms"] / found[sizes[0]]["cpu_ms"]) ** (1 / decades))


def _goals(results: dict[str, Any]) -> list[Goal]:
    largest = list(results["sizes"].values())[-1]
    timed = largest["at_70_percent"]
    goals = [
        Goal(name="throughput to bare", value=largest["ratio"], target=0.15, unit="", better="higher"),
        Goal(name="throughput to bare, by CPU time", value=largest["cpu_ratio"], target=0.15, unit="", better="higher"),
        Goal(name="logged", value=largest["logged"], target=0.99, unit="", better="higher"),
        *(
            Goal(name=f"logged, {name} connections", value=share, target=0.99, unit="", better="higher")
            for name, share in largest["logged_by_connections"].items()
        ),
        Goal(name="p50 at 70 %", value=timed["p50"], target=4.0, unit="ms", better="lower"),
        Goal(name="p99 at 70 %", value=timed["p99"], target=12.0, unit="ms", better="lower"),
        Goal(name="memory", value=largest["memory_mb"], target=2_000.0, unit="MB", better="lower"),
        Goal(name="failures", value=float(largest["failures"]), target=0.0, unit="requests", better="lower"),
    ]
    if results["growth_of_cpu_per_decade"] is not None:
        value = results["growth_of_cpu_per_decade"]
        goals.append(Goal(name="growth per decade", value=value, target=1.15, unit="", better="lower"))
    return goals


@contextmanager
def _api(stack: Stack, core: int, report: Path) -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    port, operations = servers.free_port(), servers.free_port()
    with _process(
        "infra.benchmarks.serving.api", port, operations, core, report, environment=stack.environment()
    ) as process:
        yield port, process
        process.terminate()
        if process.wait(_END_SECONDS):
            raise Unavailable(f"The API process ended with {process.returncode}.")


@contextmanager
def _bare(core: int, answer: Path) -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    port = servers.free_port()
    with _process("infra.benchmarks.serving.bare", port, core, answer) as process:
        _answers(port)
        yield port, process


@contextmanager
def _process(
    module: str, *arguments: object, environment: dict[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    process = subprocess.Popen(
        leashed(command, os.getpid(), signal.SIGKILL), env=environment, stdout=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def _serves(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _LOADED_SECONDS
    async with Client(f"http://{servers.LOOPBACK}:{port}", None, _LOADED_SECONDS, 1) as client:
        while isinstance(answer := await client.parameters(), Failure):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Unavailable(f"The API process does not serve, or not in time: {answer.detail}")
            await asyncio.sleep(_LOOK_SECONDS)


def _one_answer(port: int) -> bytes:
    """The bytes of an answer."""
    body = msgspec.json.encode({"user_id": "user-0", "slate_size": SLATE_SIZE, "surface": "home"})
    asked = urllib.request.Request(
        f"http://{servers.LOOPBACK}:{port}/v1/recommendations", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=_END_SECONDS) as answer:  # noqa: S310 - our own address
        content: bytes = answer.read()
    return content


def _answers(port: int) -> None:
    deadline = time.monotonic() + _END_SECONDS
    while True:
        try:
            socket.create_connection((servers.LOOPBACK, port), timeout=1.0).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_LOOK_SECONDS)
