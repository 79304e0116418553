"""Merges as the lake has them: which users visitors turned out to be, and until when what they did is the user's."""

import bisect
from collections.abc import Iterable
from typing import NamedTuple

import pyarrow.compute as pc

from feature_store.contracts.columns import EVENTS
from feature_store.contracts.identity import MASKED
from feature_store.lake_path import LakePath
from streaming.lake_files import partition_folders, read_all


class Merged(NamedTuple):
    """A merge, and its place in the log."""

    user: str  # key of the visitor
    account: str  # of the user
    time: int  # ms
    log: str
    partition: int
    offset: int


def merges(lake: LakePath) -> list[Merged]:
    """All merges of the log, but those of users whose rows have left the lake."""
    found = []
    wanted = (pc.field("kind") == "merge") & ~pc.starts_with(pc.field("user"), MASKED)
    for log, partition, folder in partition_folders(lake, "events"):
        rows = read_all(folder, EVENTS, ["user", "account", "time", "offset"], wanted).to_pylist()
        found += [Merged(row["user"], row["account"], row["time"], log, partition, row["offset"]) for row in rows]
    return found


class Accounts:
    """Whose it is what users did, by user key."""

    def __init__(self, merges: Iterable[Merged]) -> None:
        self._times: dict[str, list[int]] = {}
        self._accounts: dict[str, list[str]] = {}
        for merge in sorted(merges, key=lambda merge: merge.time):
            self._times.setdefault(merge.user, []).append(merge.time)
            self._accounts.setdefault(merge.user, []).append(merge.account)

    def of(self, user: str, time: int) -> str:
        """Who the user who did something at a time (ms) turned out to be: by the first merge from then on, and by the
        account's own merges after it. They themselves, if they were not merged."""
        met = {user}
        while (times := self._times.get(user)) and (place := bisect.bisect_left(times, time)) < len(times):
            user, time = self._accounts[user][place], times[place]
            if user in met:
                break
            met.add(user)
        return user

    def visitors(self) -> dict[str, tuple[list[int], list[str]]]:
        """By visitor the times (ms) of their merges, ascending, and parallel to these whose it is what they did until
        then."""
        return {user: (times, [self.of(user, time) for time in times]) for user, times in self._times.items()}

    def untils(self) -> dict[str, int]:
        """By visitor the time (ms) of their last merge."""
        return {user: times[-1] for user, times in self._times.items()}
