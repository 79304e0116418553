"""The chaos bench: processes are killed and paused under load; nothing accepted may be lost or count twice.

A whole stack of its own at default settings, with a key: two updaters, two API processes, a sink. Its broker, which
keeps the log in memory, is none of the stack's, so that the supervisor may be killed as well, and with it all that it
supervises; it is paused and never killed. Moments, kinds and victims are drawn from the seed. Recovery is the time
until every API process answers with parameters that hold what came after the disturbance, in every partition of the
log, and the sink works.
"""

import os
import secrets
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import httpx
import msgspec
import numpy as np
import psutil

from feature_store.contracts.errors import Unavailable
from infra import servers
from infra.benchmarks.audit import audit
from infra.benchmarks.bench import Goal
from infra.benchmarks.faults.site import server, wait_for
from infra.benchmarks.small_stack import small_stack
from infra.benchmarks.visitors import Promises, visiting
from infra.connections import redis_client
from infra.drain import drain
from infra.programs import API, BROKER, REDIS, SINK, UPDATER
from infra.stack import Stack
from offline_training.progress import Progress, section
from offline_training.simulation.client import Parameters

_SUPERVISOR = "supervisor"
_KILL_SUPERVISOR = f"kill {_SUPERVISOR}"
KINDS = (
    *(f"kill {role}" for role in (UPDATER, API, REDIS, SINK, _SUPERVISOR)),
    *(f"pause {role}" for role in (UPDATER, SINK, BROKER, _SUPERVISOR)),
)
_PAUSE_SECONDS = 1.5  # longer than the session of an updater
_VISITS_PER_SECOND = 40.0
_USERS = 500
_ITEMS = 200
_SLATE_SIZE = 10
_POLL_SECONDS = 0.02
_ASK_SECONDS = 2.0
_GIVE_UP_SECONDS = 120.0
_QUIET_SHARE = 0.15  # of the time, at the beginning and at the end


class Disturbance(NamedTuple):
    """What was done, and how long until all was well."""

    kind: str
    program: str
    at: float  # seconds after the start
    recovery: float  # seconds
    computed: float  # processor seconds of what took its place: a busy machine makes it wait as well


def run(seed: int, progress: Progress, *, seconds: float, kills: int) -> tuple[dict[str, Any], list[Goal]]:
    """Load for at least `seconds`, disturbed `kills` times; each kind at least once if there are nine or more."""
    key, port = secrets.token_hex(16), servers.free_port()
    with server(servers.broker_command(port)) as broker:
        wait_for(lambda: servers.kafka_answers(servers.LOOPBACK, port), broker)
        changes: dict[str, dict[str, Any]] = {
            "kafka": {"bootstrap": f"{servers.LOOPBACK}:{port}"},
            "updater": {"processes": 2},
            "serving": {
                "workers": 2,
                "api_key": key,
                "host": servers.LOOPBACK,
                "port": servers.free_port(),
            },
        }
        shape = {"clusters": 8, "edges_per_cluster": 60}
        with small_stack("chaos", changes, _ITEMS, shape, section(progress, 0, 0.2)) as stack:
            url, load = str(stack.endpoints.api), (_USERS, _VISITS_PER_SECOND, _SLATE_SIZE)
            with httpx.Client(timeout=_ASK_SECONDS) as asking, visiting(url, key, *load, seed) as promises:
                torment = _Torment(stack, broker.pid, promises, asking, seed)
                disturbances = torment.carry_out(schedule(seed, seconds, kills), seconds, section(progress, 0.2, 0.9))
            progress(0.9, "waiting until everything is folded and stored")
            live = stack.settings
            drained = drain(live)
            progress(0.95, "reading the whole log")
            with redis_client(live) as client:
                found = audit(live, client, promises, drained)
    restarts = [d.recovery for d in disturbances if d.kind == _KILL_SUPERVISOR]
    recovery = [d.recovery for d in disturbances if d.kind != _KILL_SUPERVISOR]
    results = {
        "decisions": len(promises.decisions),
        "accepted_events": len(promises.events),
        "duplicates_sent": promises.duplicates,
        "requests_repeated": promises.repeated,
        "answers_without_exploration": promises.unlogged,
        "unexpected_answers": promises.unexpected,
        "audit": found._asdict(),
        "recovery_seconds": {kind: _quantiles(disturbances, kind) for kind in KINDS},
        "disturbances": [d._asdict() for d in disturbances],
    }
    return results, [
        Goal(name="lost", value=float(found.lost), target=0.0, unit="trials", better="lower"),
        Goal(name="doubled", value=float(found.doubled), target=0.0, unit="trials", better="lower"),
        Goal(name="state_equals_replay", value=float(found.equal), target=1.0, unit="", better="higher"),
        Goal(name="unexpected_answers", value=float(promises.unexpected.total()), target=0.0, unit="", better="lower"),
        Goal(name="recovery_max", value=max(recovery, default=0.0), target=15.0, unit="s", better="lower"),
        Goal(name="restart_max", value=max(restarts, default=0.0), target=30.0, unit="s", better="lower"),
    ]


def schedule(seed: int, seconds: float, kills: int) -> list[tuple[float, str]]:
    """When what is done: moments in seconds, ascending, with kinds as even in number as can be."""
    rng = np.random.default_rng(seed)
    moments = np.sort(rng.uniform(_QUIET_SHARE * seconds, (1 - _QUIET_SHARE) * seconds, kills))
    kinds = [KINDS[kind] for _ in range(0, kills, len(KINDS)) for kind in rng.permutation(len(KINDS))]
    return [(float(at), kind) for at, kind in zip(moments, kinds, strict=False)]


class _Torment:
    """What is done to an installation under load."""

    def __init__(self, stack: Stack, broker: int, promises: Promises, asking: httpx.Client, seed: int) -> None:
        """broker: its process id. asking: for the programs' own ports."""
        self._stack = stack
        self._broker = broker
        self._promises = promises
        self._pause_seconds = stack.settings.updater.session_seconds + _PAUSE_SECONDS
        self._partitions = range(stack.settings.kafka.partitions)
        self._rng = np.random.default_rng([seed, 1])
        self._asking = asking
        self._resumed = threading.Event()
        self._resumed.set()
        self._ports = self._own_ports()  # asked for before: a paused supervisor does not answer

    def carry_out(self, plan: list[tuple[float, str]], seconds: float, progress: Progress) -> list[Disturbance]:
        """Does what is planned, one after the other, each once all is well. Lasts for at least so many seconds."""
        began, done = time.monotonic(), list[Disturbance]()
        for moment, kind in plan:
            time.sleep(max(0.0, began + moment - time.monotonic()))
            progress(len(done) / len(plan), f"{time.monotonic() - began:.0f} s: {kind}")
            at, wall = time.monotonic(), time.time()
            program = self._disturb(kind)
            self._recover()
            done.append(Disturbance(kind, program, at - began, time.monotonic() - at, self._computed_since(wall)))
            self._resumed.wait()
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        return done

    def _disturb(self, kind: str) -> str:
        """Returns the name of the program that it was done to."""
        verb, _, role = kind.partition(" ")
        program, pid = self._victim(role)
        if verb == "kill":
            os.kill(pid, signal.SIGKILL)
            if kind == _KILL_SUPERVISOR:
                self._start_anew()
            return program
        self._resumed.clear()
        os.kill(pid, signal.SIGSTOP)
        threading.Timer(self._pause_seconds, self._resume, (pid,)).start()
        return program

    def _victim(self, role: str) -> tuple[str, int]:
        """Name and process id of a program of the role that runs."""
        if role == BROKER:
            return role, self._broker
        while True:
            running = [program for program in self._stack.status() if program.pid]
            if role == _SUPERVISOR and running:
                return role, psutil.Process(running[0].pid).ppid()
            if candidates := [program for program in running if program.name.startswith(role)]:
                victim = candidates[int(self._rng.integers(len(candidates)))]
                return victim.name, victim.pid
            time.sleep(_POLL_SECONDS)

    def _resume(self, pid: int) -> None:
        os.kill(pid, signal.SIGCONT)
        self._resumed.set()

    def _start_anew(self) -> None:
        """As an init system does with `matchloop up`."""
        while self._stack.running:
            time.sleep(_POLL_SECONDS)
        self._stack.stop()
        self._stack.start(REDIS, UPDATER, SINK, API)
        self._ports = self._own_ports()

    def _own_ports(self) -> dict[str, int]:
        return {program.name: program.port for program in self._stack.status()}

    def _recover(self) -> None:
        """Returns when all is well, or is not after long."""
        before, deadline = dict(self._promises.ends), time.monotonic() + _GIVE_UP_SECONDS
        waiting = [name for name in self._ports if name.startswith((API, SINK))]
        while waiting and time.monotonic() < deadline:
            waiting = [name for name in waiting if not self._is_well(name, before)]
            time.sleep(_POLL_SECONDS)

    def _is_well(self, name: str, before: Mapping[int, int]) -> bool:
        """Whether an API process has parameters that hold something of every partition from behind these offsets, or
        whether another program works."""
        try:
            if not name.startswith(API):
                servers.http_answers(servers.LOOPBACK, self._ports[name], "/healthz")
                return True
            url = f"http://{servers.LOOPBACK}:{self._ports[name]}/v1/parameters"
            answer = self._asking.get(url).raise_for_status()
            offsets = msgspec.json.decode(answer.content, type=Parameters).offsets
        except (OSError, Unavailable, httpx.HTTPError):
            return False
        return all(offsets[partition] > before.get(partition, 0) for partition in self._partitions)

    def _computed_since(self, wall: float) -> float:
        """Processor seconds of the programs that were started from a time on, seconds since the epoch."""
        times = [
            process.cpu_times()
            for program in self._stack.status()
            if program.pid
            for process in [psutil.Process(program.pid)]
            if process.create_time() >= wall
        ]
        return float(sum(one.user + one.system for one in times))


def _quantiles(disturbances: Sequence[Disturbance], kind: str) -> dict[str, float]:
    seconds = [d.recovery for d in disturbances if d.kind == kind]
    return {"count": len(seconds), "p50": float(np.median(seconds)), "max": max(seconds)} if seconds else {"count": 0}
