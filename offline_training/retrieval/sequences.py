"""What users did, as sequences that the user tower is trained on, and cut into what it reads."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from feature_store.arrays import Bool, Int64
from feature_store.definitions import POSITIVE, HistoryEvent, gap_buckets, kind_id


class Histories(NamedTuple):
    """What the user tower reads of n users: events oldest first, padded with 0 behind the newest.

    item (n, L): item numbers plus one. kind (n, L): definitions.kind_id. gap (n, L): definitions.gap_buckets. length
    (n,). liked (n, L): whether the event's kind is positive, which the ranker's similarities look at and the tower does
    not.
    """

    item: Int64
    kind: Int64
    gap: Int64
    length: Int64
    liked: Bool

    @classmethod
    def none(cls) -> "Histories":
        """Of nobody."""
        empty = np.zeros((0, 1), np.int64)
        return cls(empty, empty, empty, np.zeros(0, np.int64), np.zeros((0, 1), np.bool_))

    def take(self, rows: Int64) -> "Histories":
        """The histories of the chosen users."""
        return Histories(self.item[rows], self.kind[rows], self.gap[rows], self.length[rows], self.liked[rows])

    def liked_items(self, row: int) -> Int64:
        """The item numbers of one user's positive events, newest first."""
        items: Int64 = self.item[row][self.liked[row]][::-1] - 1
        return items


class Targets(NamedTuple):
    """m events to predict: from state (m,) of row (m,) of the histories beside them, where state s knows the first s
    events of the row. event (m,): which events of the Sequences they are."""

    row: Int64
    state: Int64
    event: Int64


class Windows(NamedTuple):
    """Parts of users' sequences: the history is events first..end (of all users' events), and what is to be predicted
    are the events first_target..end_target."""

    first: Int64
    end: Int64
    first_target: Int64
    end_target: Int64

    def take(self, rows: Int64) -> "Windows":
        """The chosen windows."""
        return Windows(self.first[rows], self.end[rows], self.first_target[rows], self.end_target[rows])


@dataclass(frozen=True)
class Sequences:
    """The events of U users, user by user, oldest first; all arrays but start and profile run over the n events.

    start (U + 1,): user u has the events start[u]..start[u + 1]. item: item numbers. kind: rows of kinds. positive:
    whether the event is one to recommend for. time: ms. visible: how many of the user's events were known strictly
    before this one (or came before it, where an order is known beside the times); it never falls within a user.
    profile (U, USER_TOKENS), of the texts in profile_tokens.
    """

    users: list[str]
    start: Int64
    item: Int64
    kind: Int64
    kinds: list[str]
    positive: Bool
    time: Int64
    visible: Int64
    profile: Int64
    profile_tokens: list[list[str]]

    @cached_property
    def user(self) -> Int64:
        """(n,) the user of each event."""
        return np.repeat(np.arange(len(self.users)), np.diff(self.start))

    @cached_property
    def index(self) -> dict[str, int]:
        """The row of each user."""
        return {user: row for row, user in enumerate(self.users)}

    @cached_property
    def _liked_kinds(self) -> Bool:
        return np.array([kind.endswith(POSITIVE) for kind in self.kinds], np.bool_)

    @cached_property
    def _kind_ids(self) -> Int64:
        return np.array([0, *(kind_id(kind) for kind in self.kinds)])[1:]

    def among_first(self, count: Int64) -> Bool:
        """(n,) whether an event is among the first count[u] of its user u."""
        among: Bool = np.arange(len(self.item)) - self.start[self.user] < count[self.user]
        return among

    def before(self, moment: int) -> Int64:
        """(U,) how many events of each user were known strictly before the moment (ms)."""
        return np.bincount(self.user[self.time < moment], minlength=len(self.users))

    def renumbered(self, numbers: Int64) -> "Sequences":
        """The same in another catalogue: numbers (I,) holds an item's number there, -1 if it is not there; events with
        such items are left out."""
        item = numbers[self.item]
        kept = item >= 0
        count = np.bincount(self.user[kept], minlength=len(self.users))
        gone = np.concatenate([[0], np.cumsum(~kept)])  # up to each event, over all users
        begin = self.start[self.user]
        visible = self.visible - (gone[begin + self.visible] - gone[begin])
        columns = {"item": item, "kind": self.kind, "positive": self.positive, "time": self.time, "visible": visible}
        return replace(
            self,
            start=np.concatenate([[0], np.cumsum(count)]),
            **{name: column[kept] for name, column in columns.items()},
        )

    def events(self, user: int, known: int, items: Sequence[str]) -> list[HistoryEvent]:
        """The first `known` events of a user as serving reads them, newest first. items: the ids by number."""
        rows = range(int(self.start[user]) + known - 1, int(self.start[user]) - 1, -1)
        return [HistoryEvent(items[self.item[k]], self.kinds[self.kind[k]], int(self.time[k])) for k in rows]

    def histories(self, user: Int64, known: Int64, length: int) -> Histories:
        """The newest `length` of the first known[i] events of user[i]; user, known: (m,)."""
        end = self.start[user] + known
        return self.cut(np.maximum(end - length, self.start[user]), end, length)

    def cut(self, first: Int64, end: Int64, width: int) -> Histories:
        """The events first[i]..end[i], at most `width` of them, as histories (m, width)."""
        count = end - first
        inside = np.arange(width) < count[:, None]
        if not len(self.item):
            nothing = np.zeros(inside.shape, np.int64)
            return Histories(nothing, nothing, nothing, count, inside)
        event = np.where(inside, first[:, None] + np.arange(width), 0)
        return Histories(
            item=np.where(inside, self.item[event] + 1, 0),
            kind=np.where(inside, self._kind_ids[self.kind[event]], 0),
            gap=np.where(inside, gap_buckets(self.time[event]), 0),
            length=count,
            liked=inside & self._liked_kinds[self.kind[event]],
        )

    def windows(self, length: int, until: Int64, rng: np.random.Generator) -> Windows:
        """Cuts the first until[u] events of every user into windows with at most `length` events of history.

        Every positive event is predicted in one window, and no window is without one. In sequences that need several
        the cuts are drawn anew each time, so that an event does not stand as far from the start of its window in every
        pass.
        """
        last = self._last_state(until)  # nothing beyond is needed to predict the newest event
        newest = np.where(last > length, rng.integers(1, length + 1, len(last)), np.maximum(last, 0))
        tiles = 1 + np.maximum(0, -(-(last - newest) // length))
        tiles[until == 0] = 0
        user = np.repeat(np.arange(len(last)), tiles)
        place = np.arange(len(user)) - np.repeat(np.cumsum(tiles) - tiles, tiles)
        high = np.where(place == 0, last[user], last[user] - newest[user] - (place - 1) * length)
        low = np.where(place + 1 < tiles[user], last[user] - newest[user] - place * length, -1)
        start = self.start[user]
        rank = self._rank()
        windows = Windows(
            first=start + np.maximum(0, high - length),
            end=start + high,
            first_target=np.searchsorted(rank, start + user + low, side="right"),
            end_target=np.minimum(np.searchsorted(rank, start + user + high, side="right"), start + until[user]),
        )
        positives = np.concatenate([[0], np.cumsum(self.positive)])
        return windows.take(np.flatnonzero(positives[windows.end_target] > positives[windows.first_target]))

    def _last_state(self, until: Int64) -> Int64:
        last = np.full(len(until), -1, np.int64)
        some = until > 0
        last[some] = self.visible[self.start[:-1][some] + until[some] - 1]
        return last

    def _rank(self) -> Int64:
        """(n,) what `visible` counts, ascending over all users: every user takes one number more than they have
        events, for the state before the first."""
        return self.start[:-1][self.user] + self.user + self.visible


def batches(windows: Windows, events: int, rng: np.random.Generator) -> Iterator[Windows]:
    """The windows in batches with room for about `events` events, padding counted: windows of like length together,
    batches in random order."""
    width = np.maximum(windows.end - windows.first, 1)
    order = np.argsort(width + rng.integers(0, 32, len(width)), kind="stable")
    ends, start = [], 0
    while start < len(order):
        # Widths rise by and large, so the widest is near the end; what it is decides how many fit.
        running = np.maximum.accumulate(width[order[start : start + events]])
        fits = running * np.arange(1, len(running) + 1) <= events
        start += max(1, int(fits.sum()))
        ends.append(start)
    parts = np.split(order, ends[:-1])
    for number in rng.permutation(len(parts)):
        yield windows.take(parts[number])


def targets(sequences: Sequences, windows: Windows, horizon: int, rng: np.random.Generator) -> Targets:
    """The positive events to predict in the windows, each from the state it was met in or, drawn at random, up to
    `horizon` events earlier: what somebody will do soon, not only next (PinnerFormer, Pancha et al., KDD 2022)."""
    count = windows.end_target - windows.first_target
    row = np.repeat(np.arange(len(count)), count)
    event = windows.first_target[row] + np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    positive = sequences.positive[event]
    row, event = row[positive], event[positive]
    owner = sequences.user[event]
    state = sequences.start[owner] + sequences.visible[event] - windows.first[row]
    if horizon:
        # The state before the first event is that of somebody new: in a later part of a sequence there is none.
        lowest = (windows.first[row] > sequences.start[owner]).astype(np.int64)
        state = np.maximum(state - rng.integers(0, horizon + 1, len(state)), np.minimum(lowest, state))
    return Targets(row, state, event)
