"""The chaos bench: processes are killed and paused under load; nothing accepted may be lost or count twice.

A whole stack of its own: two updaters, two API processes, a Redis that syncs every write. Moments, kinds and victims
are drawn from the seed. Recovery is the time until every API process answers with parameters that hold what came after
the disturbance, in every partition of the log.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from infra.benchmarks.audit import audit
from infra.benchmarks.bench import Goal
from infra.benchmarks.small_stack import small_stack
from infra.benchmarks.visitors import Promises, Visitors
from infra.connections import redis_client
from infra.drain import drain
from infra.programs import API, REDIS, UPDATER
from infra.stack import Stack
from offline_training.progress import Progress, section
from offline_training.simulation.client import Client, Failure

KILL_UPDATER, PAUSE_UPDATER, KILL_API, KILL_REDIS = KINDS = (
    "kill updater",
    "pause updater",
    "kill api",
    "kill redis",
)
_VICTIMS = {KILL_UPDATER: UPDATER, PAUSE_UPDATER: UPDATER, KILL_API: API, KILL_REDIS: REDIS}
_SESSION_SECONDS = 2.0
_PAUSE_SECONDS = _SESSION_SECONDS + 1.5
_CHANGES: dict[str, dict[str, Any]] = {
    "updater": {"processes": 2, "session_seconds": _SESSION_SECONDS},
    "serving": {"workers": 2, "api_key": None, "host": "127.0.0.1", "port": 0},
    "redis": {"fsync": "always"},
    "lake": {"flush_seconds": 1.0},
}
_VISITS_PER_SECOND = 40.0
_USERS = 500
_ITEMS = 200
_SLATE_SIZE = 10
_POLL_SECONDS = 0.02
_GIVE_UP_SECONDS = 60.0
_QUIET_SHARE = 0.15  # of the time, at the beginning and at the end


class Disturbance(NamedTuple):
    """What was done, and how long until all was well."""

    kind: str
    program: str
    at: float  # seconds after the start
    recovery: float  # seconds


def run(seed: int, progress: Progress, *, seconds: float, kills: int) -> tuple[dict[str, Any], list[Goal]]:
    """Load for at least `seconds`, disturbed `kills` times; each kind at least once if there are four or more."""
    with small_stack(
        "chaos", _CHANGES, _ITEMS, {"clusters": 8, "edges_per_cluster": 60}, section(progress, 0, 0.2)
    ) as stack:
        disturbances, promises = asyncio.run(_torment(stack, seed, seconds, kills, section(progress, 0.2, 0.9)))
        progress(0.9, "waiting until everything is folded and stored")
        live = stack.settings
        drained = drain(live)
        progress(0.95, "reading the whole log")
        with redis_client(live) as client:
            found = audit(live, client, promises, drained)
    recovery = [d.recovery for d in disturbances]
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
    ]


def schedule(seed: int, seconds: float, kills: int) -> list[tuple[float, str]]:
    """When what is done: moments in seconds, ascending, with kinds as even in number as can be."""
    rng = np.random.default_rng(seed)
    moments = np.sort(rng.uniform(_QUIET_SHARE * seconds, (1 - _QUIET_SHARE) * seconds, kills))
    kinds = [KINDS[kind] for _ in range(0, kills, len(KINDS)) for kind in rng.permutation(len(KINDS))]
    return [(float(at), kind) for at, kind in zip(moments, kinds, strict=False)]


async def _torment(
    stack: Stack, seed: int, seconds: float, kills: int, progress: Progress
) -> tuple[list[Disturbance], Promises]:
    url = stack.endpoints.api
    assert url is not None
    stop, rng = asyncio.Event(), np.random.default_rng([seed, 1])
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as clients:
        client = await clients.enter_async_context(Client(url, None, 5.0, 64))
        workers = [
            await clients.enter_async_context(Client(f"http://127.0.0.1:{program.port}", None, 2.0, 2))
            for program in await asyncio.to_thread(stack.status)
            if program.name.startswith(API)
        ]
        visitors = Visitors(client, _USERS, _VISITS_PER_SECOND, _SLATE_SIZE, seed)
        coming = loop.create_task(visitors.come(stop))
        began = loop.time()
        done: list[Disturbance] = []
        for moment, kind in schedule(seed, seconds, kills):
            await asyncio.sleep(max(0.0, began + moment - loop.time()))
            progress(len(done) / kills, f"{loop.time() - began:.0f} s: {kind}")
            at = loop.time()
            program = await _disturb(stack, kind, rng)
            await _recovered(workers, visitors.promises, stack.settings.kafka.partitions)
            done.append(Disturbance(kind, program, at - began, loop.time() - at))
        await asyncio.sleep(max(0.0, began + seconds - loop.time()))
        stop.set()
        await coming
    return done, visitors.promises


async def _disturb(stack: Stack, kind: str, rng: np.random.Generator) -> str:
    """Kills or pauses a program of the kind that runs. Returns its name."""
    while True:
        running = [p for p in await asyncio.to_thread(stack.status) if p.name.startswith(_VICTIMS[kind]) and p.pid]
        if running:
            break
        await asyncio.sleep(_POLL_SECONDS)
    victim = running[int(rng.integers(len(running)))]
    if kind == PAUSE_UPDATER:
        os.kill(victim.pid, signal.SIGSTOP)
        asyncio.get_running_loop().call_later(_PAUSE_SECONDS, os.kill, victim.pid, signal.SIGCONT)
    else:
        os.kill(victim.pid, signal.SIGKILL)
    return victim.name


async def _recovered(workers: Sequence[Client], promises: Promises, partitions: int) -> None:
    """Returns when every worker's parameters hold something of every partition that was accepted from now on."""
    before = dict(promises.ends)
    deadline = asyncio.get_running_loop().time() + _GIVE_UP_SECONDS
    waiting = list(workers)
    while waiting and asyncio.get_running_loop().time() < deadline:
        answers = [await worker.parameters() for worker in waiting]
        waiting = [
            worker
            for worker, answer in zip(waiting, answers, strict=True)
            if isinstance(answer, Failure) or any(answer.offsets[p] <= before.get(p, 0) for p in range(partitions))
        ]
        await asyncio.sleep(_POLL_SECONDS)


def _quantiles(disturbances: Sequence[Disturbance], kind: str) -> dict[str, float]:
    seconds = [d.recovery for d in disturbances if d.kind == kind]
    return {"count": len(seconds), "p50": float(np.median(seconds)), "max": max(seconds)} if seconds else {"count": 0}
