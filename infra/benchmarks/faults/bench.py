"""What becomes of answers when parts fail, one after the other: `cases.py` says which.

Requests come at a steady rate all the while, and what was refused for now is asked again. Of each case: statuses and
paths of the answers, their times, and how long after it had ended until all was well again. Then more is asked than can
be answered: at ten times the rate that is reached, what is answered should take no longer than three times what it
takes at 70 %, and the rest be refused at once. At the end everything acknowledged must be in the log, the state be what
the log says, and both API processes know the same. MLflow is not there but for the end of its own case.
"""

import asyncio
import contextlib
import math
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import msgspec
import psutil

from feature_store.contracts.errors import InvalidInput
from infra.benchmarks.audit import audit
from infra.benchmarks.bench import Goal
from infra.benchmarks.faults.asking import Asked, Asking, quantile_ms
from infra.benchmarks.faults.cases import CASES, Case
from infra.benchmarks.faults.site import Site, running_site
from infra.benchmarks.serving.load import Load, Measured
from infra.drain import drain
from infra.servers import LOOPBACK
from offline_training.progress import Progress, section
from streaming.kafka import partition_of

_RATE = 20.0  # requests a second
_PATIENCE_SECONDS = 60.0
_LOOK_SECONDS = 0.2
_MOST_SECONDS = 2.5  # that an answer may take: the time limit of Redis and some more
_RECOVERY_SECONDS = 15.0
_CONNECTIONS = 4, 512  # to find out what can be answered, and to ask for more
_SHARE, _OVERLOAD = 0.7, 10.0  # of what can be answered
_TIMES, _REFUSED_MS, _MEMORY_MB = 3.0, 50.0, 100.0
_OVERLOAD_NAME = "10 x overload"


def run(
    seed: int, progress: Progress, *, seconds: float, overload_seconds: float, only: str | None = None
) -> tuple[dict[str, Any], list[Goal]]:
    """Each case for `seconds`. only: a part of the names of the cases that are played, without the overload unless it
    is among them. Raises InvalidInput if there is none."""
    cases = [case for case in CASES if only is None or only.lower() in case.name.lower()]
    overload = only is None or only.lower() in _OVERLOAD_NAME
    if not cases and not overload:
        raise InvalidInput(f"No case has {only!r} in its name. There are: {', '.join(case.name for case in CASES)}.")
    # One thread for all faults: a process that one of them starts ends with the thread that started it.
    with ThreadPoolExecutor(1) as thread, running_site(section(progress, 0.0, 0.2)) as site:
        found, promises = asyncio.run(_play(site, cases, seconds, seed, section(progress, 0.2, 0.8), thread))
        over = _overload(site, overload_seconds, seed) if overload else None
        progress(0.9, "reading the whole log")
        audited = audit(site.settings, site.client, promises, drain(site.settings))
        alike = asyncio.run(_alike(site))
        keyring, partitions = site.settings.keyring(), site.settings.kafka.partitions

    def partition(user: str) -> int:
        return partition_of(keyring.user_key(user), partitions)

    results = {
        "cases": {case.name: _summary(case, *one, partition) for case, one in zip(cases, found, strict=True)},
        "overload": over,
        "missing": audited.missing,
        "state_equals_replay": audited.equal,
        "processes_alike": alike,
        "accepted_events": len(promises.events),
        "decisions": len(promises.decisions),
        "asked_again": promises.repeated,
    }
    return results, _goals(results)


def rows(results: dict[str, Any]) -> list[list[str]]:
    """A row per case."""
    table = [["case", "statuses", "paths", "logged", "p50 ms", "p99 ms", "well after"]]
    for name, one in results["cases"].items():
        counts = (", ".join(f"{what} {count}" for what, count in one[kind].items()) for kind in ("statuses", "paths"))
        recovery = "never" if one["recovery_seconds"] is None else f"{one['recovery_seconds']:.1f} s"
        times = (f"{one[q]:.0f}" for q in ("p50_ms", "p99_ms"))
        table.append([name, *counts, f"{one['logged']:.0%}", *times, recovery])
    if (over := results["overload"]) is not None:
        statuses = ", ".join(f"{status} {count}" for status, count in over["statuses"].items())
        table.append(
            [
                _OVERLOAD_NAME,
                statuses,
                "",
                f"{over['logged']:.0%}",
                f"{over['p50_ms']:.0f}",
                f"{over['p99_ms']:.0f}",
                "",
            ]
        )
    return table


async def _play(
    site: Site, cases: Sequence[Case], seconds: float, seed: int, progress: Progress, thread: ThreadPoolExecutor
) -> "tuple[list[tuple[list[Asked], float]], Any]":
    found, loop = [], asyncio.get_running_loop()
    async with Asking(site.url, seed) as asking:
        await asking.until_well(_PATIENCE_SECONDS)
        for number, case in enumerate(cases):
            progress(number / len(cases), case.name)
            stop = asyncio.Event()
            coming = asyncio.create_task(asking.until(stop, _RATE))
            with contextlib.ExitStack() as fault:
                await loop.run_in_executor(thread, fault.enter_context, case.fault(site))
                await asyncio.sleep(case.lasts or seconds)
                await loop.run_in_executor(thread, fault.close)
            stop.set()
            asked = await coming
            found.append((asked, await asking.until_well(_PATIENCE_SECONDS)))
    return found, asking.promises


def _summary(case: Case, asked: Sequence[Asked], recovery: float, partition: Callable[[str], int]) -> dict[str, Any]:
    """partition: of the log, by user."""
    answered = [one for one in asked if one.status == 200]
    logged = defaultdict[int, list[bool]](list)
    for one in answered:
        logged[partition(one.user)].append(one.logged)
    elsewhere = [one for number, own in logged.items() if number != case.silent for one in own]
    return {
        "statuses": dict(Counter(str(one.status) for one in asked)),
        "paths": dict(Counter(one.path for one in answered)),
        "other_paths": sum(one.path not in case.paths for one in answered),
        "logged": sum(one.logged for one in answered) / max(1, len(answered)),
        "logged_by_partition": {number: sum(own) / len(own) for number, own in sorted(logged.items())},
        "unlogged_elsewhere": 0 if case.silent is None else elsewhere.count(False),
        "p50_ms": quantile_ms(asked, 0.5),
        "p99_ms": quantile_ms(asked, 0.99),
        "recovery_seconds": None if math.isnan(recovery) else recovery,
    }


def _overload(site: Site, seconds: float, seed: int) -> dict[str, Any]:
    def ask(connections: int, lasting: float, rate: float | None) -> Measured:
        load = Load(site.port, lasting, connections, 2_000, 5, seed, rate)
        done = subprocess.run(
            [sys.executable, "-m", "infra.benchmarks.serving.load"],
            input=msgspec.json.encode(load),
            stdout=subprocess.PIPE,
            check=True,
        )
        return msgspec.json.decode(done.stdout, type=Measured)

    few, many = _CONNECTIONS
    reached = ask(few, seconds / 5, None)
    rate = reached.answered / reached.seconds
    usual = ask(few * 4, seconds / 3, _SHARE * rate)
    before = _memory(site)
    over = ask(many, seconds, _OVERLOAD * rate)
    return {
        "reached_per_second": rate,
        "usual_p99_ms": usual.p99,
        "usual_refused": usual.statuses.get(503, 0),
        "statuses": {str(status): count for status, count in over.statuses.items()},
        "logged": over.logged / max(1, over.answered),
        "p50_ms": over.p50,
        "p99_ms": over.p99,
        "refused_p99_ms": over.refused_p99,
        "memory_mb": _memory(site) - before,
    }


async def _alike(site: Site) -> bool:
    """Whether all API processes end with the same parameters."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < deadline:
            found = set()
            for port in site.operations:
                async with session.get(f"http://{LOOPBACK}:{port}/v1/parameters?digest=true") as answer:
                    found.add(await answer.read() if answer.status == 200 else None)
            if len(found) == 1 and None not in found:
                return True
            await asyncio.sleep(_LOOK_SECONDS)
    return False


def _memory(site: Site) -> float:
    return sum(psutil.Process(process.pid).memory_info().rss for process in site.processes) / 1e6


def _goals(results: dict[str, Any]) -> list[Goal]:
    cases = results["cases"].values()
    others = sum(count for one in cases for status, count in one["statuses"].items() if status != "200")
    recovery = max((_PATIENCE_SECONDS if one["recovery_seconds"] is None else one["recovery_seconds"] for one in cases),
                   default=0.0)  # fmt: skip
    figures = [
        ("requests without a slate", float(others), 0.0, ""),
        ("slates by another path", float(sum(one["other_paths"] for one in cases)), 0.0, ""),
        ("unlogged beside a silent partition", float(sum(one["unlogged_elsewhere"] for one in cases)), 0.0, ""),
        ("slowest p99", max((one["p99_ms"] for one in cases), default=0.0), _MOST_SECONDS * 1000, "ms"),
        ("longest recovery", recovery, _RECOVERY_SECONDS, "s"),
        ("acknowledged and lost", float(results["missing"]), 0.0, ""),
        ("states unlike the log", float(not results["state_equals_replay"]), 0.0, ""),
        ("processes unlike each other", float(not results["processes_alike"]), 0.0, ""),
    ]
    if (over := results["overload"]) is not None:
        failed = sum(count for status, count in over["statuses"].items() if status not in ("200", "503"))
        figures += [
            ("overload: neither slate nor 503", float(failed), 0.0, ""),
            ("overload: p99 to the usual", over["p99_ms"] / max(over["usual_p99_ms"], 1e-9), _TIMES, "times"),
            ("overload: p99 of refusals", over["refused_p99_ms"], _REFUSED_MS, "ms"),
            ("overload: more memory", over["memory_mb"], _MEMORY_MB, "MB"),
        ]
    return [
        Goal(name=name, value=value, target=target, unit=unit, better="lower") for name, value, target, unit in figures
    ]
