"""`matchloop bench ope`: are off-policy estimates right, and are their intervals honest?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.ope.coat import debiased
from benchmarks.ope.coverage import TUNING_SEEDS, coverage
from benchmarks.ope.open_bandit import both_ways
from benchmarks.ope.own_loop import estimates
from benchmarks.ope.peers import differences
from benchmarks.ope.plot import draw
from benchmarks.pay.bench import prepared_world, world
from infra.benchmarks.bench import Goal
from offline_training.off_policy.estimators import HEADLINE
from offline_training.progress import Progress, section, silent

EQUAL = 1e-9
LOWEST, HIGHEST = 0.93, 0.97
NO_OVERLAP = ("women", "random")  # Thompson sampling showed some items once in a million times


def run(
    data: Path | None,
    seed: int,
    progress: Progress,
    *,
    logs: int,
    tuning: bool,
    worlds: Sequence[str],
    out: Path | None,
) -> tuple[dict[str, Any], list[Goal]]:
    """data: folder that holds open-bandit-small and coat; None: these parts are left out. logs: of each synthetic kind.
    tuning: synthetic logs of the seeds that intervals were chosen on, which are not reported. worlds: of bench pay, in
    which replay says what policies earn before they run. out: where the picture is written.

    Raises InvalidInput for a world that there is not, and without the data that it is made of.
    """
    started = seed + (TUNING_SEEDS if tuning else 0)
    results: dict[str, Any] = {"obp": differences(seed), "tuning": tuning}
    results["coverage"] = coverage(logs, started, section(progress, 0.0, 0.9))
    if data is not None:
        progress(0.9, "Open Bandit")
        results["open_bandit"] = both_ways(data)
        progress(0.95, "Coat")
        results["coat"] = debiased(data, seed)
    if worlds:
        results["own_loop"] = {"estimates": [found for name in worlds for found in _played(name, data, seed, progress)]}
    if out is not None:
        draw(results, out)
    return results, [] if tuning else goals(results)


def goals(results: dict[str, Any]) -> list[Goal]:
    """What should hold: the values of obp, intervals that hold the truth as often as they say wherever a value is not
    refused, and real logs that agree with what was measured or are refused."""
    found = []
    if results["obp"] is not None:
        worst = max(results["obp"].values())
        found.append(Goal(name="obp.difference", value=worst, target=EQUAL, unit="relative", better="lower"))
    for kind, figures in results["coverage"].items():
        if figures["refused"] < figures["logs"] / 2:
            held = figures["estimators"][HEADLINE]["coverage"]
            name = f"coverage.{kind}"
            found.append(Goal(name=f"{name}.least", value=held, target=LOWEST, unit="share", better="higher"))
            found.append(Goal(name=f"{name}.most", value=held, target=HIGHEST, unit="share", better="lower"))
    for campaign, policies in results.get("open_bandit", {}).items():
        for policy, figures in policies.items():
            name = f"open_bandit.{campaign}.{policy}"
            refused = float(figures["refused"] is not None)
            if (campaign, policy) == NO_OVERLAP:
                found.append(Goal(name=f"{name}.refused", value=refused, target=1, unit="yes", better="higher"))
            else:
                agrees = float(figures["agrees"] and not refused)
                found.append(Goal(name=f"{name}.agrees", value=agrees, target=1, unit="yes", better="higher"))
    believed = [one for one in results.get("own_loop", {}).get("estimates", []) if one["refused"] is None]
    if believed:
        held = sum(one["holds"] for one in believed) / len(believed)
        found.append(Goal(name="own_loop.held", value=held, target=LOWEST, unit="share", better="higher"))
    if "coat" in results:
        models = results["coat"]["models"]
        ratio = models["weighted"]["mse"] / models["plain"]["mse"]
        found.append(Goal(name="coat.mse", value=ratio, target=1, unit="weighted over plain", better="lower"))
    return found


def _played(name: str, data: Path | None, seed: int, progress: Progress) -> list[dict[str, Any]]:
    progress(0.95, f"the project's own loop: {name}")
    prepared = prepared_world(world(name), data, silent)
    return [found | {"name": f"{name}: {found['name']}"} for found in estimates(prepared, seed)]


def rows(results: dict[str, Any]) -> list[list[str]]:
    """The synthetic logs, for people: by kind and estimator."""
    table = [["LOGS", "N", "EFFECTIVE", "REFUSED", "ESTIMATOR", "COVERAGE", "RMSE", "BIAS", "WIDTH"]]
    for kind, found in results["coverage"].items():
        for name, own in found["estimators"].items():
            table.append(
                [
                    kind,
                    f"{found['decisions']:,}",
                    f"{found['effective_size']:.0f}",
                    f"{found['refused'] / found['logs']:.0%}",
                    name,
                    f"{own['coverage']:.3f}",
                    f"{own['rmse']:.4f}",
                    f"{own['bias']:+.4f}",
                    f"{own['width']:.4f}",
                ]
            )
    return table
