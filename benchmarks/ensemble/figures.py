"""What is reported beside the figures of bench pay: the time after a drift, and the price of a rebuilt graph."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.pay.figures import likes_by_turn, spread
from benchmarks.pay.loop import Run
from benchmarks.pay.world import World
from feature_store.arrays import Float64

SPELL = 3  # turns


def after(world: World, runs: Mapping[str, Sequence[Run]], base: str, turn: int) -> dict[str, list[dict[str, Any]]]:
    """By arm, how far ahead of the base it is in the spells that follow a turn: the first and the last of the turns of
    each, and the difference as compare has it."""
    likes = {arm: np.mean([likes_by_turn(world, run) for run in own], axis=0) for arm, own in runs.items()}
    spells = [slice(first, min(first + SPELL, world.turns)) for first in range(turn, world.turns, SPELL)]
    return {
        arm: [
            {"turns": [spell.start, spell.stop - 1], **spread((own - likes[base])[spell], world.slate)}
            for spell in spells
        ]
        for arm, own in likes.items()
    }


def next_slates(world: World, runs: Sequence[Run], base: Sequence[Run], turn: int, slates: int) -> dict[str, float]:
    """Differences of the visits that follow the beginning of a turn, so many of them: likes per 1,000 planned
    impressions with their interval over users, and in % of the base's."""
    visits = slice(turn * len(world.visitors), turn * len(world.visitors) + slates)

    def likes(own: Sequence[Run]) -> Float64:
        of = [np.bincount(run.visitor[visits], run.liked[visits].sum(axis=1), len(world.visitors)) for run in own]
        mean: Float64 = np.mean(of, axis=0)
        return mean

    others = likes(base)
    paired = likes(runs) - others
    each = slates / len(world.visitors)  # visits of a visitor
    return {**spread(paired[None] / each, world.slate), "per_cent": float(100 * paired.sum() / max(others.sum(), 1.0))}
