"""From what arms showed to what is reported: likes, paired differences with intervals over users, discoveries."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.pay.loop import Run
from benchmarks.pay.world import World
from feature_store.arrays import Float64
from offline_training.evaluation.metrics import interval

PER = 1_000  # planned impressions
DISCOVERED = (1, 3, 5)  # likes


def compare(world: World, runs: Mapping[str, Sequence[Run]], base: str) -> dict[str, dict[str, Any]]:
    """Figures by arm. runs: by arm, one for each seed, the same seeds for all. base: the arm that others are held
    against.

    likes: per 1,000 planned impressions (a slate that came out short is not excused). difference: the same minus the
    base's, with its 95 % interval over users, each of whom counts once with their mean over seeds; also over the first
    and second half of the turns, and over users whom training knew and others.
    """
    old, first = world.returning, np.arange(world.turns) < world.turns // 2
    everybody, always = np.ones_like(old), np.ones_like(first)
    parts = {
        "difference": (always, everybody),
        "first_half": (first, everybody),
        "second_half": (~first, everybody),
        "known_users": (always, old),
        "new_users": (always, ~old),
    }
    likes = {arm: np.mean([likes_by_turn(world, run) for run in own], axis=0) for arm, own in runs.items()}
    found = {}
    for arm, own in runs.items():
        paired = likes[arm] - likes[base]
        found[arm] = {
            "likes": PER * float(likes[arm].mean()) / world.slate,
            **{
                name: spread(paired[turns][:, users], world.slate)
                for name, (turns, users) in parts.items()
                if users.any()
            },
            "new_items": new_items(world, own),
            "by_turn": (PER * likes[arm].mean(axis=1) / world.slate).round(2).tolist(),
            "seconds": float(np.mean([run.seconds for run in own])),
        }
    return found


def new_items(world: World, runs: Sequence[Run]) -> dict[str, float]:
    """How often newcomers were shown and liked, and how many of them were liked at least 1, 3 and 5 times: means over
    runs."""
    known = len(world.past.items)
    rows = []
    for run in runs:
        new = run.shown >= known
        likes = np.bincount(run.shown[new & run.liked] - known, minlength=len(world.newcomers))
        rows.append([new.sum(), likes.sum(), *((likes >= least).sum() for least in DISCOVERED)])
    names = ["shown", "likes", *(f"liked_{least}" for least in DISCOVERED)]
    return dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))


def likes_by_turn(world: World, run: Run) -> Float64:
    """(turns, V) likes of each visitor in each turn."""
    visitors = len(world.visitors)
    counted = np.zeros((world.turns, visitors))
    np.add.at(counted, (np.arange(len(run.visitor)) // visitors, run.visitor), run.liked.sum(axis=1))
    return counted


def spread(paired: Float64, slate: int) -> dict[str, float]:
    """Differences in likes (visits, users) per PER impressions planned in them: mean over users, and its interval."""
    return dict(zip(("mean", "low", "high"), interval(PER * paired.mean(axis=0) / slate), strict=True))
