"""The scenarios: a world, how long, how late feedback comes, and who takes part."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from benchmarks.regret.contenders import (
    ALWAYS,
    BETA,
    GAUSSIAN,
    LIKELY_BETA,
    MAB,
    OFFLINE,
    VOWPAL_WABBIT,
    Contender,
)
from benchmarks.regret.movielens import Sparse, arriving
from benchmarks.regret.world import Environment, jester, upworthy

EVALUATED, TUNED = slice(0, 200), slice(200, 300)  # campaigns of Upworthy
_DELAYS = {"none": 0.0, "1%": 0.01, "10%": 0.1}  # of the horizon
_WITH_VOWPAL_WABBIT = {
    "jester/binary/static/none",
    "jester/binary/static/10%",
    "jester/binary/arriving/1%",
}
_WITH_MABWISER = "jester/binary/static/none"
MABWISER_ROUNDS = 1_000  # of seven milliseconds each


class Scenario(NamedTuple):
    """`delay` in rounds; `spread`: about the standard deviation of a reward."""

    name: str
    rounds: int
    delay: int
    spread: float
    contenders: tuple[Contender, ...]


def scenarios() -> list[Scenario]:
    """All of them. Vowpal Wabbit takes part in three of jester's and mabwiser in one, because they take longer than all
    others together; mabwiser plays the first MABWISER_ROUNDS rounds."""
    found = []
    for delay, share in _DELAYS.items():
        for items in ("static", "arriving"):
            for reward, spread, thompson in (("continuous", 0.25, GAUSSIAN), ("binary", 0.45, BETA)):
                name = f"jester/{reward}/{items}/{delay}"
                playing = [*ALWAYS, thompson]
                playing += VOWPAL_WABBIT if name in _WITH_VOWPAL_WABBIT else ()
                playing += [MAB] if name == _WITH_MABWISER else []
                found.append(Scenario(name, 50_000, int(share * 50_000), spread, tuple(playing)))
        for rounds in (5_000, 20_000):
            playing = [*ALWAYS, BETA]
            found.append(Scenario(f"upworthy/{rounds}/{delay}", rounds, int(share * rounds), 0.12, tuple(playing)))
        playing = [*ALWAYS, LIKELY_BETA, OFFLINE]
        found.append(Scenario(f"movielens/{delay}", 100_000, int(share * 100_000), 0.5, tuple(playing)))
    return found


def worlds(scenario: Scenario, data: Path, sparse: Path, seed: int, tuning: bool) -> Iterator[Environment]:
    """What a policy is run on, once each. sparse: where Sparse.save wrote. tuning: on worlds kept for that, where the
    worlds do not depend on the seed."""
    match scenario.name.split("/"):
        case ["jester", reward, items, _]:
            yield jester(data, seed, scenario.rounds, binary=reward == "binary", arriving=items == "arriving")
        case ["upworthy", *_]:
            yield from upworthy(data, TUNED if tuning else EVALUATED)
        case _:
            yield arriving(_load(sparse), scenario.rounds, seed)


_load = lru_cache(maxsize=1)(Sparse.load)
