"""Retraining in mid-flight: what an installation's own training makes of the log so far."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.pay.loop import VISIT_MS, Run
from benchmarks.pay.release import Prepared, prepare, train
from benchmarks.pay.world import World
from benchmarks.retrieval.datasets import Dataset
from benchmarks.retrieval.ours import sequences
from feature_store.translation import Translation
from offline_training.carry_over.change_point import between
from offline_training.evaluation.baselines import Interactions
from offline_training.progress import Progress, section
from offline_training.retrieval.dataset import Impressions, profile_ids
from offline_training.settings import TrainingSettings

_LIKE = "like+"
Kind = TypeVar("Kind", bound="np.generic[Any]")


class Retraining:
    """The releases of one world, one after the other. Whoever comes to a turn first trains the release that follows
    then, on their log; it serves all arms after them, as one lake's release serves all variants of an experiment."""

    def __init__(
        self,
        prepared: Prepared,
        lake: Dataset,
        turns: Sequence[int],
        folder: Path,
        settings: TrainingSettings,
        progress: Progress,
    ) -> None:
        """prepared: the first release. lake: what was known when visitors began to come, of the items that the first
        release knows. turns: before which a release is made. folder: keeps releases."""
        self._releases = [prepared]
        self._changes: list[tuple[Prepared, Translation]] = []
        self._lake, self._turns = lake, list(turns)
        self._folder, self._settings, self._progress = folder, settings, progress

    @property
    def releases(self) -> list[str]:
        """Those that have served, first one first."""
        return [prepared.release for prepared in self._releases]

    def at(self, turn: int, before: Run) -> tuple[Prepared, Translation] | None:
        """What follows when a turn begins, and where its clusters are; before: what was shown until then."""
        if turn not in self._turns:
            return None
        number = self._turns.index(turn)
        if number == len(self._changes):
            self._changes.append(self._made(turn, before))
        return self._changes[number]

    def logged(self, turn: int, before: Run) -> Impressions:
        """What an arm has shown when a turn begins, in item numbers."""
        world = self._releases[0].world
        known = as_known(world, self._lake, turn, before).past
        return impressions(world, known, before, self._settings.history_length)

    def _made(self, turn: int, before: Run) -> tuple[Prepared, Translation]:
        first, last, number, turns = self._releases[0].world, self._releases[-1], len(self._changes), len(self._turns)
        world = as_known(first, self._lake, turn, before)
        shown = self.logged(turn, before)
        part = section(self._progress, number / turns, (number + 1) / turns)
        prepared = prepare(world, *train(world, self._folder, self._settings, part, shown))
        self._releases.append(prepared)
        people = sequences(world.past, np.arange(len(world.past.positive)))
        names = [item.id for item in world.past.items]
        return prepared, between(last.snapshots[-1], prepared.snapshots[0], names, people)


def as_known(world: World, lake: Dataset, turn: int, before: Run) -> World:
    """The world when a turn begins: its past is the lake and what was liked until then, of all items that have
    entered."""
    log, visit, place = lake.log, *np.nonzero(before.liked)
    entered = [new.item for new in world.newcomers if new.turn <= turn]
    user = np.concatenate([log.user, world.visitors[before.visitor[visit]]])
    item = np.concatenate([log.item, before.shown[visit, place]])
    time = np.concatenate([log.time, world.moment + VISIT_MS * visit])
    order = np.lexsort((np.arange(len(user)), time, user))
    kinds = np.concatenate([lake.kinds, np.full(len(visit), _LIKE)])
    positive = np.concatenate([lake.positive, np.ones(len(visit), np.bool_)])
    past = Dataset(
        log=Interactions(user[order], item[order], time[order], log.users, len(lake.items) + len(entered)),
        kinds=kinds[order],
        positive=positive[order],
        items=[*lake.items, *entered],
        profiles=lake.profiles,
    )
    moment = world.moment + VISIT_MS * len(before.visitor)
    return replace(world, past=past, moment=moment, newcomers=tuple(new for new in world.newcomers if new.turn > turn))


def impressions(world: World, past: Dataset, before: Run, history_length: int) -> Impressions:
    """What was shown, as the training set of that name has it. past: as it was known afterwards."""
    known = sequences(past, np.arange(len(past.positive)))
    time, user = world.moment + VISIT_MS * np.arange(len(before.visitor)), world.visitors[before.visitor]
    own = [known.time[known.start[u] : known.start[u + 1]] for u in user]
    events = np.array([np.searchsorted(times, moment) for times, moment in zip(own, time, strict=True)], np.int64)
    there = before.shown >= 0

    def of_slates(values: NDArray[Kind]) -> list[NDArray[Kind]]:
        return [row[some] for row, some in zip(values, there, strict=True)]

    liked = of_slates(before.liked)
    return Impressions(
        user=[known.users[u] for u in user],
        time=time,
        profile=profile_ids([past.profiles[u] for u in user]),
        histories=known.histories(user, events, history_length),
        items=of_slates(before.shown),
        places=of_slates(np.tile(np.arange(world.slate), (len(user), 1))),
        clicked=liked,
        rewards=[row.astype(np.float64) for row in liked],
    )
