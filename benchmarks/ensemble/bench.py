"""`matchloop bench ensemble`: what is a retrain, and what was learnt online, worth to each other?

Arms play the worlds of bench pay with the same visitors, and in mid-flight a retrained release follows the one that
serves. Each carries over what it has learnt by the code of `matchloop retrain`, in its own way or not at all.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ensemble.arms import ANEW, GRID, OFFLINE, ONCE, ONLINE, REBUILT, Habit, periodic
from benchmarks.ensemble.figures import after, next_slates
from benchmarks.ensemble.rebuilt import rebuilt_graph
from benchmarks.ensemble.retraining import Retraining
from benchmarks.ensemble.worlds import CASES, DRIFT, NEW_ITEMS, RECURRENCE, TURNS, Case
from benchmarks.pay.bench import TUNING_SEEDS
from benchmarks.pay.figures import compare
from benchmarks.pay.loop import Change, Follow, Run, no_other
from benchmarks.pay.loop import run as play
from benchmarks.pay.plot import draw
from benchmarks.pay.release import Prepared, prepare, train
from benchmarks.pay.worlds import SUDDEN
from benchmarks.retrieval.ours import sequences
from feature_store.contracts.errors import InvalidInput
from feature_store.sums import Rows
from feature_store.translation import Translation
from infra.benchmarks.bench import Goal
from infra.settings import load
from offline_training.carry_over.change_point import between, next_base
from offline_training.progress import Progress, section

DEFAULT = "default"
PEERS = (OFFLINE.name, ONLINE.name, ONCE.name)
LOSS = -1.0  # % of what a peer earns
REBUILDING, SLATES = -2.0, 1_000  # % of what comes without it, over so many slates

Results = dict[str, dict[str, Any]]  # world -> figures


def run(
    data: Path | None,
    seed: int,
    progress: Progress,
    *,
    only: str | None,
    seeds: int,
    grid: bool,
    tuning: bool,
    out: Path | None,
) -> tuple[dict[str, Any], list[Goal]]:
    """data: folder that holds the data sets. only: plays the worlds whose names contain it. seeds: how many, from
    `seed` on. grid: plays all of omega and kappa, too. tuning: plays the worlds and seeds that settings are chosen on,
    not those that are reported. out: where the picture is written.

    Raises InvalidInput if data is missing or no world fits.
    """
    there = [case for case in CASES if case.tuning == tuning]
    chosen = [case for case in there if only is None or only in case.name]
    if not chosen:
        names = ", ".join(case.name for case in there)
        raise InvalidInput(f"No world of bench 'ensemble' contains {only!r}. There are: {names}.")
    if data is None:
        raise InvalidInput("Bench 'ensemble' needs --data: the folder with ml-100k and the other data sets.")
    numbers = [seed + (TUNING_SEEDS if tuning else 0) + k for k in range(seeds)]
    results: Results = {}
    for place, case in enumerate(chosen):
        part = section(progress, place / len(chosen), (place + 1) / len(chosen))
        results[case.name] = _played(case, data, numbers, grid, part)
    if out is not None:
        draw(results, out)
    return {"worlds": results, "seeds": numbers, "tuning": tuning}, [] if tuning else goals(results)


def goals(results: Results) -> list[Goal]:
    """What should hold of the shipped default: surely better than either side alone where tastes change and items are
    new, than a prior that is never mixed again where they come back, and nowhere worse."""
    found = []

    def add(name: str, value: float, target: float, unit: str) -> None:
        found.append(Goal(name=name, value=value, target=target, unit=unit, better="higher"))

    for name, figures in results.items():
        wins = {DRIFT: PEERS[:2], NEW_ITEMS: PEERS[:2], RECURRENCE: PEERS[2:]}.get(figures["kind"], ())
        for peer in PEERS:
            ahead, per_cent = figures["ahead_of"][peer], 100 / figures["arms"][peer]["likes"]
            if peer in wins:
                add(f"{name}.ahead_of.{peer}", per_cent * ahead["low"], 0.0, "%, lower bound")
            else:
                add(f"{name}.ahead_of.{peer}", per_cent * ahead["mean"], LOSS, "%")
        add(f"{name}.rebuilt_graph", figures["rebuilt"]["per_cent"], REBUILDING, f"% over {SLATES} slates")
    return found


def rows(results: dict[str, Any]) -> list[list[str]]:
    """Every arm in every world, for people: likes per 1,000 planned impressions, and how far the arm is ahead of the
    offline model alone, and the default of it."""

    def said(found: dict[str, float]) -> str:
        return f"{found['mean']:+.1f} ± {found['mean'] - found['low']:.1f}"

    head = ["WORLD", "ARM", "LIKES", "AHEAD OF OFFLINE", "FIRST HALF", "SECOND HALF", "THE DEFAULT IS AHEAD BY"]
    table = [[*head, "NEW: SHOWN", "LIKES", "SECONDS"]]
    for name, figures in results["worlds"].items():
        for arm, own in figures["arms"].items():
            parts = (said(own[part]) for part in ("difference", "first_half", "second_half"))
            new = own["new_items"]
            counts = (f"{new['shown']:.0f}", f"{new['likes']:.0f}", f"{own['seconds']:.1f}")
            table.append([name, arm, f"{own['likes']:.1f}", *parts, said(figures["ahead_of"][arm]), *counts])
    return table


def _played(case: Case, data: Path, seeds: Sequence[int], grid: bool, progress: Progress) -> dict[str, Any]:
    settings, lake = load(), case.lake(data)
    training = settings.training.model_copy(update={"list_length": 0})  # no list is made, and none is made anew
    folder = settings.home / "cache" / "ensemble"
    world = case.world(data)
    releases, release = train(world, folder, training, section(progress, 0.0, 0.15))
    prepared = prepare(world, releases, release)
    retraining = Retraining(prepared, lake, TURNS, folder, training, section(progress, 0.15, 0.4))
    default = periodic(training.ensemble_omega, training.ensemble_keep, DEFAULT)
    people = sequences(world.past, np.arange(len(world.past.positive)))
    names = [item.id for item in world.past.items]
    whole = default._replace(keep=1.0)  # the release that follows has learnt nothing of the trials

    def rebuilds(scratch: Path) -> Follow:
        other = rebuilt_graph(prepared, releases, people, training.seed + 1, scratch)
        matrix = between(prepared.snapshots[-1], other.snapshots[-1], names, people)

        def follow(turn: int, before: Run) -> Change | None:
            return _change(retraining, turn, before, whole, other, matrix) if turn == TURNS[0] else None

        return follow

    with tempfile.TemporaryDirectory(prefix="matchloop-ensemble-") as scratch:
        habits = [default, OFFLINE, ONLINE, ONCE, ANEW, REBUILT, *(GRID if grid else ())]
        follow = {REBUILT.name: rebuilds(Path(scratch)), ONLINE.name: no_other, ONCE.name: no_other}
        played: dict[str, list[Run]] = {}
        for k, habit in enumerate(habits):  # the default first: releases are made of its log
            progress(0.4 + 0.6 * k / len(habits), f"{case.name}: {habit.name}")
            going = follow.get(habit.name) or _retrains(retraining, habit)
            played[habit.name] = [play(prepared, habit.arm, seed, follow=going) for seed in seeds]
    ordered = {name: played[name] for name in (OFFLINE.name, *(n for n in played if n != OFFLINE.name))}
    rebuilt = next_slates(world, played[REBUILT.name], played[ONCE.name], TURNS[0], SLATES)
    return {
        "kind": case.kind,
        "releases": retraining.releases,
        "users": len(world.visitors),
        "turns": world.turns,
        "arms": compare(world, ordered, OFFLINE.name),
        "ahead_of": {
            name: compare(world, {name: own, DEFAULT: played[DEFAULT]}, name)[DEFAULT]["difference"]
            for name, own in played.items()
        },
        "rebuilt": rebuilt,
        **({"after_drift": after(world, ordered, OFFLINE.name, int(np.argmax(SUDDEN)))} if case.kind == DRIFT else {}),
    }


def _retrains(retraining: Retraining, habit: Habit) -> Follow:
    def follow(turn: int, before: Run) -> Change | None:
        found = retraining.at(turn, before)
        return None if found is None else _change(retraining, turn, before, habit, *found)

    return follow


def _change(
    retraining: Retraining, turn: int, before: Run, habit: Habit, prepared: Prepared, matrix: Translation
) -> Change:
    new, logged = prepared.snapshots[turn], retraining.logged(turn, before)

    def base(learnt: Rows) -> Rows:
        return next_base(learnt, matrix, new, logged, habit.omega, habit.keep)

    return Change(prepared, matrix, base)
