"""`matchloop bench pay`: does what is learnt online earn more than it costs?

Arms play the same closed loop with the same visitors, each in a copy of the world that no other one touches, so that
differences are paired by user. The release of a world is trained once, by the project's own training at its defaults,
and kept.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pay.arms import ARMS, DEFAULT, FROZEN, GREEDY, ORACLE, Arm
from benchmarks.pay.figures import compare
from benchmarks.pay.loop import run as play
from benchmarks.pay.plot import draw
from benchmarks.pay.release import Prepared, prepare, train
from benchmarks.pay.worlds import ENTRIES, ML_100K, Entry
from feature_store.contracts.errors import InvalidInput
from infra.benchmarks.bench import Goal
from infra.settings import load
from offline_training.progress import Progress, section

TUNING_SEEDS = 1_000  # from here on; reported are those from --seed on
HARM = -0.5  # % of what the frozen order earns
ORACLE_SHARE, ML_100K_GAIN = 2 / 3, 9.0
DISCOVERIES = 3.0  # times the frozen order's

Results = dict[str, dict[str, Any]]  # world -> figures


def run(
    data: Path | None,
    seed: int,
    progress: Progress,
    *,
    only: str | None,
    seeds: int,
    tuning: bool,
    out: Path | None,
) -> tuple[dict[str, Any], list[Goal]]:
    """data: folder that holds the data sets. only: plays the world of that name, or else those whose names contain it.
    seeds: how many, from `seed` on. tuning: plays the worlds and seeds that settings are chosen on, not those that are
    reported. out: where the picture is written.

    Raises InvalidInput if data is missing or no world fits.
    """
    there = [entry for entry in ENTRIES if entry.tuning == tuning]
    chosen = [entry for entry in there if entry.name == only] or [e for e in there if only is None or only in e.name]
    if not chosen:
        names = ", ".join(entry.name for entry in there)
        raise InvalidInput(f"No world of bench 'pay' contains {only!r}. There are: {names}.")
    numbers = [seed + (TUNING_SEEDS if tuning else 0) + k for k in range(seeds)]
    results: Results = {}
    for place, entry in enumerate(chosen):
        part = section(progress, place / len(chosen), (place + 1) / len(chosen))
        prepared = prepared_world(entry, data, section(part, 0.0, 0.5))
        results[entry.name] = _played(entry, prepared, ARMS, numbers, section(part, 0.5, 1.0))
    if out is not None:
        draw(results, out)
    return {"worlds": results, "seeds": numbers, "tuning": tuning}, [] if tuning else goals(results)


def world(name: str) -> Entry:
    """The entry of a world. Raises InvalidInput if there is none of that name."""
    for entry in ENTRIES:
        if entry.name == name:
            return entry
    raise InvalidInput(f"There is no world {name!r}. There are: {', '.join(entry.name for entry in ENTRIES)}.")


def prepared_world(entry: Entry, data: Path | None, progress: Progress) -> Prepared:
    """A world with its release, which is trained if it is not in `<home>/cache/pay` yet. Raises InvalidInput if the
    data are missing."""
    if data is None:
        raise InvalidInput("Bench 'pay' needs --data: the folder with ml-100k and the other data sets.")
    settings = load()
    made = entry.make(data, entry.name)
    prepared = prepare(made, *train(made, settings.home / "cache" / "pay", settings.training, progress))
    if entry.as_predicted:
        return replace(prepared, world=replace(made, likes=prepared.predicted[None].astype(np.float32)))
    return prepared


def goals(results: Results) -> list[Goal]:
    """What should hold of one shipped default in every world: greedy learning never earns less than the frozen order,
    and surely more where there is something to learn; exploring costs no more than it may."""
    found = []

    def add(name: str, value: float, target: float, unit: str) -> None:
        found.append(Goal(name=name, value=value, target=target, unit=unit, better="higher"))

    for name, figures in results.items():
        arms, per_cent = figures["arms"], 100 / figures["arms"][FROZEN.name]["likes"]
        greedy, default = arms[GREEDY.name]["difference"], arms[DEFAULT.name]["difference"]
        add(f"{name}.greedy", per_cent * greedy["mean"], 0.0, "% over frozen")
        add(f"{name}.default", per_cent * default["mean"], HARM, "% over frozen")
        if figures["gains"]:
            add(f"{name}.greedy.surely", per_cent * greedy["low"], 0.0, "% over frozen, lower bound")
            add(f"{name}.default.surely", per_cent * default["low"], 0.0, "% over frozen, lower bound")
    if ML_100K in results:
        arms = results[ML_100K]["arms"]
        gain = arms[DEFAULT.name]["difference"]["mean"]
        add(f"{ML_100K}.default.gain", gain, ML_100K_GAIN, "likes per 1,000")
        share = gain / arms[ORACLE.name]["difference"]["mean"]
        add(f"{ML_100K}.default.share_of_oracle", share, ORACLE_SHARE, "of the item oracle's gain")
        add(f"{ML_100K}.default.first_half", arms[DEFAULT.name]["first_half"]["mean"], 0.0, "likes per 1,000")
        frozen = max(1.0, arms[FROZEN.name]["new_items"]["liked_5"])
        add(f"{ML_100K}.default.discovered", arms[DEFAULT.name]["new_items"]["liked_5"] / frozen, DISCOVERIES, "x")
    return found


def rows(results: dict[str, Any]) -> list[list[str]]:
    """Every arm in every world, for people: likes per 1,000 planned impressions, and differences to the frozen
    order."""

    def spread(found: dict[str, float] | None) -> str:
        return "" if found is None else f"{found['mean']:+.1f} ± {found['mean'] - found['low']:.1f}"

    parts = ("difference", "first_half", "second_half", "known_users", "new_users")
    head = ["WORLD", "ARM", "LIKES", *(part.upper().replace("_", " ") for part in parts)]
    table = [[*head, "NEW: SHOWN", "LIKES", "LIKED 1/3/5", "SECONDS"]]
    for name, figures in results["worlds"].items():
        for arm, own in figures["arms"].items():
            new = own["new_items"]
            table.append(
                [
                    name,
                    arm,
                    f"{own['likes']:.1f}",
                    *(spread(own.get(part)) for part in parts),
                    f"{new['shown']:.0f}",
                    f"{new['likes']:.0f}",
                    "/".join(f"{new[f'liked_{least}']:.0f}" for least in (1, 3, 5)),
                    f"{own['seconds']:.1f}",
                ]
            )
    return table


def _played(
    entry: Entry, prepared: Prepared, arms: Sequence[Arm], seeds: Sequence[int], progress: Progress
) -> dict[str, Any]:
    played = {}
    for k, arm in enumerate(arms):
        progress(k / len(arms), f"{entry.name}: {arm.name}")
        played[arm.name] = [play(prepared, arm, seed) for seed in seeds]
    made = prepared.world
    return {
        "stands_for": entry.stands_for,
        "gains": entry.gains,
        "release": prepared.release,
        "users": len(made.visitors),
        "known_users": int(made.returning.sum()),
        "items": len(made.items),
        "new_items": len(made.newcomers),
        "turns": made.turns,
        "slate": made.slate,
        "arms": compare(made, played, FROZEN.name),
    }
