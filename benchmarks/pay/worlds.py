"""The worlds of the bench by name: their sources, what they stand for, and which of them settings may be chosen on."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.pay.dense import jester
from benchmarks.pay.generator import generated
from benchmarks.pay.world import TURNS, World, by_time
from benchmarks.retrieval.datasets import Dataset, moment_at, movielens_1m_in_time, movielens_100k, movielens_small
from feature_store.arrays import Int64

TRAINED_SHARE = 0.8  # of the time span
TRAINED_RATINGS = 0.8  # of MovieLens-1M's, most of which were given in a tenth of its time span
MOST_VISITORS = 400
MOSTLY_NEW, MOSTLY_NEW_UNTIL = 0.6, 0.3  # share of the items that are new, and of the turns in which they enter
CHANGED_SHARE = 0.5  # of the items, whose likers change when tastes do
RECURRENCE = 3  # turns
LATE = 0.1  # of the visits pass before feedback comes
LOOKS = 0.9  # chance of looking at a place, to the power of the place from 0

Make = Callable[[Path, str], World]  # folder of the data sets, name
Read = Callable[[Path], Dataset]


class Entry(NamedTuple):
    """How a world is made and what it stands for. tuning: it is for choosing settings, and never reported. gains: new
    items, or tastes that the release does not know, leave something to be learnt. as_predicted: what visitors like is
    drawn by what the release predicts of them, in place of what the world says."""

    name: str
    make: Make
    stands_for: str
    gains: bool = True
    tuning: bool = False
    as_predicted: bool = False


def by_span(time: Int64) -> int:
    """Visitors are what people did in the last fifth of the time span."""
    return moment_at(time, TRAINED_SHARE)


def by_ratings(time: Int64) -> int:
    """The same where most ratings are of one time: the last fifth of the ratings."""
    return int(np.quantile(time, TRAINED_RATINGS)) // 1000 * 1000


class Source(NamedTuple):
    """A data set, and when visitors begin to come, by the times (n,) of its log, ms."""

    read: Read
    moment: Callable[[Int64], int] = by_span


def plain(source: Source, data: Path, name: str) -> World:
    """Real people by time: what came after the moment is what visitors like."""
    dataset = source.read(data)
    return by_time(name, dataset, source.moment(dataset.log.time), most=MOST_VISITORS)


def earlier(source: Source) -> Source:
    """The same log before anything that a reported world takes for what visitors like."""

    def read(data: Path) -> Dataset:
        dataset = source.read(data)
        time = dataset.log.time
        kept = np.flatnonzero(time < min(by_span(time), np.quantile(time, TRAINED_RATINGS)))
        return replace(dataset, log=dataset.log.take(kept), kinds=dataset.kinds[kept], positive=dataset.positive[kept])

    return source._replace(read=read)


def as_it_happened(source: Source, data: Path, name: str) -> World:
    """Visitors come when they rated something: some come and go before others arrive."""
    dataset, world = source.read(data), plain(source, data, name)
    share = (np.arange(TURNS) + 0.5) / TURNS
    after = dataset.log.time >= world.moment
    own = [np.quantile(dataset.log.time[after & (dataset.log.user == user)], share) for user in world.visitors]
    return replace(world, times=np.stack(own))


def mostly_new(source: Source, data: Path, name: str) -> World:
    """Most of what is liked is new."""
    dataset = source.read(data)
    moment = source.moment(dataset.log.time)
    return by_time(name, dataset, moment, withheld=MOSTLY_NEW, until=MOSTLY_NEW_UNTIL, most=MOST_VISITORS)


def stale(source: Source, data: Path, name: str) -> World:
    """The release knows the first half of what came before the visitors."""
    dataset = source.read(data)
    moment = source.moment(dataset.log.time)
    until = int(np.median(dataset.log.time[dataset.log.time < moment]))
    return by_time(name, dataset, moment, trained_until=until, most=MOST_VISITORS)


def drifting(source: Source, tastes: Int64, data: Path, name: str) -> World:
    """Tastes change: half of the items, drawn at random, exchange their likers. tastes (turns,): 1 where they have."""
    world = plain(source, data, name)
    rng, items = np.random.default_rng(14), np.arange(len(world.items))
    changed = np.flatnonzero(rng.random(len(items)) < CHANGED_SHARE)
    items[changed] = rng.permutation(changed)
    return replace(world, likes=np.concatenate([world.likes, world.likes[:, :, items]]), tastes=tastes)


def delayed(source: Source, data: Path, name: str) -> World:
    """Feedback comes late, visitors look at fewer places the further down they are, and clients report what was looked
    at."""
    world = plain(source, data, name)
    visits = world.turns * len(world.visitors)
    return replace(world, delay=int(LATE * visits), seen=tuple((LOOKS ** np.arange(world.slate)).tolist()))


SUDDEN = (np.arange(TURNS) >= TURNS // 2).astype(np.int64)
RECURRENT = (np.arange(TURNS) // RECURRENCE % 2).astype(np.int64)


def family(source: str, read: Source, *, tuning: bool) -> list[Entry]:
    """The worlds that are made of one source by the same rules."""
    made = [
        ("real-order", partial(as_it_happened, read), "visitors come when they rated, many of them in one evening"),
        ("new-items", partial(mostly_new, read), "60 % of the items are new and enter in the first third of the turns"),
        ("stale", partial(stale, read), "the release was trained on the first half of what was known"),
        ("drift", partial(drifting, read, SUDDEN), "in the middle, half of the items exchange their likers"),
        ("recurrent", partial(drifting, read, RECURRENT), "the same back and forth, every three turns"),
        ("delay", partial(delayed, read), "feedback a tenth of the visits late, and places that are not looked at"),
    ]
    known = Entry(
        f"{source}/as-predicted",
        partial(plain, read),
        f"{source}'s visitors, who like what the release predicts, exactly as often: there is nothing to learn",
        gains=False,
        tuning=tuning,
        as_predicted=True,
    )
    named = [(f"{source}/{name}", make, f"{source} by time: {words}") for name, make, words in made]
    return [known, *(Entry(*one, tuning=tuning) for one in named)]


ML_100K, ML_1M, SMALL = "ml-100k", "ml-1m", "ml-latest-small"
EARLIER = "/earlier"
_ML_100K, _ML_1M, _SMALL = Source(movielens_100k), Source(movielens_1m_in_time, by_ratings), Source(movielens_small)
SOURCES = {
    ML_100K: _ML_100K,
    ML_1M: _ML_1M,
    SMALL: _SMALL,
    ML_100K + EARLIER: earlier(_ML_100K),
    ML_1M + EARLIER: earlier(_ML_1M),
    SMALL + EARLIER: earlier(_SMALL),
}
ENTRIES = (
    Entry(
        ML_100K,
        partial(plain, SOURCES[ML_100K]),
        "MovieLens-100K by time, the demo's world: 269 people, two thirds of them new, and 15 % of the items",
    ),
    Entry(
        ML_1M,
        partial(plain, SOURCES[ML_1M]),
        "MovieLens-1M by time, of its users whose times are known: a longer past, and most visitors return",
    ),
    *family(ML_100K, SOURCES[ML_100K], tuning=False),
    Entry(
        "generator",
        lambda _, name: generated(name, 1),
        "people with several interests on a map, some of whom shun what is popular: not our model class",
    ),
    Entry("jester", lambda data, name: jester(data, name, 0), "100 jokes and dense opinions, without descriptions"),
    Entry(SMALL, partial(plain, SOURCES[SMALL]), "MovieLens latest-small by time: a long tail", tuning=True),
    *family(SMALL, SOURCES[SMALL], tuning=True),
    Entry(
        ML_100K + EARLIER,
        partial(plain, SOURCES[ML_100K + EARLIER]),
        "MovieLens-100K before the time of the reported world",
        tuning=True,
    ),
    Entry(
        ML_1M + EARLIER,
        partial(plain, SOURCES[ML_1M + EARLIER]),
        "MovieLens-1M before the time of the reported world",
        tuning=True,
    ),
    Entry("generator/tuning", lambda _, name: generated(name, 2), "another draw of the generator", tuning=True),
    Entry("jester/tuning", lambda data, name: jester(data, name, 1), "the other half of the people", tuning=True),
)
