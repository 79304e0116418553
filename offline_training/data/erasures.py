"""Erasures as the lake has them: those whose users' rows are still there, and those that have been carried out.

An erasure in the log tells until where everything known of its user does not count. When the lake has been rewritten,
nothing in it leads to the user any more; what stays is a hash of the user key with the time, so that an import of older
data does not bring the user back.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from feature_store import lake_format
from feature_store.arrays import Int64
from feature_store.contracts.columns import ERASURES, EVENTS
from feature_store.contracts.identity import MASKED, Keyring
from feature_store.lake_path import LakePath
from offline_training.data.merges import Merged, merges
from streaming.lake_files import partition_folders, read_all

if TYPE_CHECKING:  # `doctor` looks for erasures on hosts that only serve, which have no pandas
    from offline_training.data.checks import Verdict


class Pending(NamedTuple):
    """An erasure whose user's rows are still in the lake, and its place in the log."""

    user: str  # key
    time: int  # ms
    log: str
    partition: int
    offset: int
    visitors: "tuple[Pending, ...]" = ()  # merged with the user before: what they did until then goes, too


def pending_erasures(lake: LakePath) -> list[Pending]:
    """The erasures in the log that the lake has not been rewritten for."""
    found = []
    for log, partition, folder in partition_folders(lake, "events"):
        erasures = (ds.field("kind") == "erasure") & ~pc.starts_with(ds.field("user"), MASKED)
        rows = read_all(folder, EVENTS, ["user", "time", "offset"], erasures).to_pylist()
        found += [Pending(row["user"], row["time"], log, partition, row["offset"]) for row in rows]
    merged: dict[str, list[Merged]] = {}
    for merge in merges(lake) if found else []:
        merged.setdefault(merge.account, []).append(merge)
    return [erasure._replace(visitors=_visitors(erasure, merged)) for erasure in found]


def _visitors(erasure: Pending, merged: Mapping[str, Sequence[Merged]]) -> tuple[Pending, ...]:
    """Who had been merged with the user by then, or with somebody who was: as erasures, at the places of the merges.
    merged: by account."""
    found, waiting = dict[Merged, None](), [(erasure.user, erasure.time)]
    while waiting:
        account, time = waiting.pop()
        new = [one for one in merged.get(account, ()) if one.time <= time and one not in found]
        found.update(dict.fromkeys(new))
        waiting += [(one.user, one.time) for one in new]
    return tuple(Pending(one.user, one.time, one.log, one.partition, one.offset) for one in found)


def erased_users(erasures: Iterable[Pending]) -> dict[str, int]:
    """The users (by key), and who was merged with them, each with the time (ms) until which what was known of them does
    not count."""
    erased: dict[str, int] = {}
    for erasure in erasures:
        for one in (erasure, *erasure.visitors):
            erased[one.user] = max(one.time, erased.get(one.user, 0))
    return erased


class CarriedOut:
    """Users who are in the lake no longer, until the time of their erasure: only a known key can be recognised."""

    def __init__(self, times: Mapping[str, int]) -> None:
        """times: by hash of the user key, ms."""
        self.times = times

    @classmethod
    def load(cls, lake: LakePath) -> "CarriedOut":
        """Reads what a rewriting of the lake has left."""
        if not (path := carried_out_file(lake)).exists():
            return cls({})
        rows = lake_format.read(path, ERASURES)
        return cls(dict(zip(rows["mark"].to_pylist(), rows["time"].to_pylist(), strict=True)))

    def rows(self) -> list[dict[str, str | int]]:
        """As the file holds them."""
        return [{"mark": mark, "time": time} for mark, time in self.times.items()]

    def refuse(self, ids: pa.StringArray, known: Int64, keyring: Keyring, verdict: "Verdict") -> None:
        """Refuses the rows of an import, by user id, that were known (ms) by the time of their user's erasure."""
        if self.times:
            users = ids.dictionary_encode()
            untils = [self.until(keyring.user_key(user)) for user in users.dictionary.to_pylist()]
            until = pa.array(untils, pa.int64()).take(users.indices).to_numpy(zero_copy_only=False)
            verdict.refuse(known <= until, "the user was erased after that")

    def until(self, user: str) -> int:
        """Until when (ms) nothing is to be known of the user (by key), -1: they were not erased."""
        return self.times.get(_mark(user), -1) if self.times else -1

    def and_also(self, erased: Mapping[str, int]) -> "CarriedOut":
        """With further users, by key."""
        marked = {_mark(user): max(time, self.until(user)) for user, time in erased.items()}
        return CarriedOut({**self.times, **marked})


def carried_out_file(lake: LakePath) -> LakePath:
    """Where they are."""
    return lake / "erasures" / "erasures.parquet"


def _mark(user: str) -> str:
    return hashlib.sha256(user.encode()).hexdigest()
