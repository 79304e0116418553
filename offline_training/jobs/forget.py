"""Rewrites what an installation holds so that nothing in it leads to the users who were erased.

Of their events in the lake only what the bandit's sums are made of stays, under masks that are drawn anew and thrown
away: fold and replay give the sums they gave before. What was imported, and what models were trained from, goes.
Namespaces and lake change at one moment for all that read them under feature_store.rewriting.reading.
"""

import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from feature_store import lake_format
from feature_store.bandit_state import BanditStore, Position
from feature_store.contracts.columns import ERASURES, EVENTS, INTERACTIONS, SHADOW, USERS
from feature_store.contracts.identity import Masks
from feature_store.definitions import DAY_MS
from feature_store.home import Home
from feature_store.lake_path import LakePath, new_file
from feature_store.namespace import Description, decode_starts, encode_starts, starts_file
from feature_store.online.store import OnlineStore
from feature_store.rewriting import Rewrite, rewriting
from offline_training.data.erasures import CarriedOut, Pending, carried_out_file, erased_users, pending_erasures
from offline_training.data.lake import parquet_files
from offline_training.data.staging import staging_folder
from offline_training.runs.runs import all_sets, discard_interrupted
from streaming.lake_files import files, partition_folders, read_all
from streaming.open_decisions import OpenDecision, anonymous, unpack

Row = dict[str, Any]

_PLACE = ("offset", "position", "kind", "time")
# Of a decision what a fold reads stays, and of the rest nothing.
_FOLDED = (
    *("release", "namespace", "variant", "learns", "offsets", "clusters", "weights"),
    *("items", "shown", "predicted", "edges", "pinned"),
)
_EMPTY = ("history", "history_kinds", "history_times", "profile", "sources", "mean", "bonus", "probabilities")
_TOLD = ("item", "type", "value", "received")


class Forgotten(NamedTuple):
    """What was done."""

    users: int
    files: int
    waiting: int  # erasures that not all namespaces have folded yet: run it again when they have


def forget(home: Home, online: OnlineStore, state: BanditStore, now: int, within_days: float) -> Forgotten:
    """Carries out the erasures that are in the lake and that every namespace being folded has passed.

    now: ms since the epoch. within_days: for how long Redis remembers who was erased, so that nothing that was read
    before the erasure is published after it. A training run that was interrupted begins anew. Raises Unavailable while
    an import, a training, a rollback or another rewriting is under way.
    """
    with staging_folder(home), rewriting(home) as rewrite:
        pending = pending_erasures(home.lake)
        ready = [erasure for erasure in pending if _is_folded(erasure, home.namespaces, online, state)]
        if ready:
            discard_interrupted(home.runs)
            job = _Forgetting(home, rewrite, ready)
            job.rewrite()
            _drop_retired(job.users, home.namespaces, online, state)
            rewrite.publish()
    if len(ready) == len(pending):
        online.users.end_erasures(now - int(within_days * DAY_MS))
    return Forgotten(len(erased_users(ready)), len(rewrite), len(pending) - len(ready))


class _Forgetting:
    """One rewriting, with masks of its own."""

    def __init__(self, home: Home, rewrite: Rewrite, erasures: Sequence[Pending]) -> None:
        self.users = erased_users(erasures)
        self._home = home
        self._rewrite = rewrite
        self._masks = Masks(secrets.token_bytes(32))
        self._places: dict[tuple[str, str, int], int] = {}  # user, log, partition -> offset
        for one in (each for erasure in erasures for each in (erasure, *erasure.visitors)):
            place = (one.user, one.log, one.partition)
            self._places[place] = max(one.offset, self._places.get(place, -1))

    def rewrite(self) -> None:
        """Writes new versions of all files that hold something of the users."""
        self._rewrite_events()
        for folder in sorted(self._home.namespaces.glob("[!.]*")):
            self._rewrite_starts(folder.name)
        for path in (*parquet_files(self._home.lake / "interactions"), *parquet_files(self._home.lake / "histories")):
            self._leave_out(path, INTERACTIONS, lambda rows: pc.max_element_wise(rows["time"], rows["written"]))
        for path in parquet_files(self._home.lake / "users"):
            self._leave_out(path, USERS, lambda rows: pc.fill_null(rows["written"], 0))
        for sets in all_sets(self._home.runs):
            for path in parquet_files(sets / "users"):
                self._leave_out(path, None, _first_times)
            for path in parquet_files(sets / "impressions"):
                self._leave_out(path, None, lambda rows: rows["time"])
        for path in parquet_files(self._home.shadow):
            self._leave_out(path, SHADOW, lambda rows: rows["time"])
        self._remember()

    def _is_theirs(self, user: str | None, time: int, log: str, partition: int, offset: int) -> bool:
        """Whether an event of the user stands before their erasure, in the log or by its time."""
        if user not in self.users:
            return False
        return time <= self.users[user] or offset <= self._places.get((user, log, partition), -1)

    def _rewrite_events(self) -> None:
        folders = [folder for *_, folder in partition_folders(self._home.lake, "events")]
        masked = set[str]().union(*map(self._their_decisions, folders))
        keys, decisions = pa.array(self.users), pa.array(masked, pa.string())
        for folder in folders:
            for path in (stretch.path for stretch in files(folder)):
                named = lake_format.read(path, EVENTS, ["user", "decision"])
                found = pc.or_(pc.is_in(named["user"], keys), pc.is_in(named["decision"], decisions))
                if pc.any(found).as_py():
                    self._rewrite_file(path, folder, found, masked)

    def _their_decisions(self, folder: LakePath) -> set[str]:
        log, partition = _log_and_partition(folder)
        decisions = (ds.field("kind") == "decision") & ds.field("user").isin(list(self.users))
        rows = read_all(folder, EVENTS, ["id", "user", "time", "offset"], decisions).to_pylist()
        return {row["id"] for row in rows if self._is_theirs(row["user"], row["time"], log, partition, row["offset"])}

    def _rewrite_file(self, path: LakePath, folder: LakePath, found: pa.ChunkedArray, masked: Collection[str]) -> None:
        log, partition = _log_and_partition(folder)
        table = lake_format.read(path, EVENTS)
        before = table.filter(found).to_pylist()
        after = [self._anonymous(row, log, partition, masked) for row in before]
        if before == after:
            return
        rows = pa.concat_tables([table.filter(pc.invert(found)), pa.Table.from_pylist(after, EVENTS)])
        ordered = rows.sort_by([("offset", "ascending"), ("position", "ascending")])
        lake_format.write(ordered, self._rewrite.draft(path))

    def _anonymous(self, row: Row, log: str, partition: int, masked: Collection[str]) -> Row:
        user, about = row["user"], row["decision"]
        time = row["time"] if row["received"] is None else row["received"]
        if not self._is_theirs(user, time, log, partition, row["offset"]) and about not in masked:
            return row
        if user not in self.users:  # somebody else's feedback on their decision
            return {**row, "decision": self._masks.decision(about)}
        kept = {name: row[name] for name in _PLACE}
        match row["kind"]:
            case "profile":  # its time stays: the log's own time moves with it
                return {**kept, "kind": "tick"}
            case "decision":
                kept |= {name: row[name] for name in _FOLDED} | {name: [] for name in _EMPTY} | {"surface": ""}
            case "feedback":
                kept |= {name: row[name] for name in _TOLD} | {"time": row["received"]}
        masks = self._masks
        return {
            **kept,
            "user": masks.user(user),
            "id": row["id"] and (masks.decision if row["kind"] == "decision" else masks.text)(row["id"]),
            "decision": about and masks.decision(about),
            "account": row["account"] and masks.user(row["account"]),
        }

    def _rewrite_starts(self, namespace: str) -> None:
        made = Description.load(self._home.namespaces, namespace)
        path = starts_file(self._home.namespaces, namespace)

        def theirs(partition: int) -> Callable[[OpenDecision], bool]:
            # An erasure behind the namespace's offset closes what it begins with.
            offset = made.offsets[partition]
            return lambda one: self._is_theirs(one.user, one.time, made.log, partition, offset)

        before = decode_starts(path.read_bytes())
        after = [anonymous(start, theirs(partition), self._masks) for partition, start in enumerate(before)]
        if before != after:
            self._rewrite.draft(path).write_bytes(encode_starts(after))

    def _leave_out(self, path: LakePath, schema: pa.Schema | None, time: Callable[[pa.Table], pa.ChunkedArray]) -> None:
        """Leaves out the users' rows that were known by the time of their erasure. time: of each row, ms."""
        keys, untils = pa.array(self.users), pa.array(self.users.values(), pa.int64())
        users = pq.read_table(lake_format.opened(path), columns=["user"])["user"]
        if not pc.any(pc.is_in(users, keys)).as_py():
            return
        kind = pq.read_schema(lake_format.opened(path)) if schema is None else lake_format.stored_schema(schema)
        with pq.ParquetWriter(self._rewrite.draft(path), kind) as target:
            for rows in _batches(path) if schema is None else lake_format.batches(path, schema):
                until = pc.take(untils, pc.index_in(rows["user"], keys))
                kept = rows.filter(pc.fill_null(pc.greater(time(rows), until), True))
                target.write_table(kept if schema is None else lake_format.stored(kept))

    def _remember(self) -> None:
        path = carried_out_file(self._home.lake)
        if not path.exists():
            with new_file(path) as draft:
                lake_format.write(ERASURES.empty_table(), draft)
        rows = CarriedOut.load(self._home.lake).and_also(self.users).rows()
        lake_format.write(pa.Table.from_pylist(rows, ERASURES), self._rewrite.draft(path))


def _is_folded(erasure: Pending, namespaces: Path, online: OnlineStore, state: BanditStore) -> bool:
    """Whether no namespace will meet the erasure any more, nor feedback on what visitors were shown whom it covers:
    their open decisions are not closed by it."""
    for namespace in online.deployment.namespaces():
        for one in (erasure, *erasure.visitors):
            position, _ = state.progress(namespace, one.partition)
            if position is None:
                made = Description.load(namespaces, namespace)
                position = Position(made.log, made.offsets[one.partition])
            if position.log == one.log and position.offset <= one.offset:
                return False
        for visitor in erasure.visitors:
            opened = map(unpack, state.opened(namespace, visitor.partition).values())
            if any(decision.user == visitor.user and decision.time <= visitor.time for decision in opened):
                return False
    return True


def _drop_retired(users: Collection[str], namespaces: Path, online: OnlineStore, state: BanditStore) -> None:
    """Drops the state of namespaces that are folded no longer, where something of the users is open in it. Activated
    again, such a partition is folded anew from the log."""
    for folder in sorted(namespaces.glob("[!.]*")):
        if folder.name in online.deployment.namespaces():
            continue
        for partition in range(len(Description.load(namespaces, folder.name).offsets)):
            opened = state.opened(folder.name, partition).values()
            if any(unpack(one).user in users for one in opened):
                state.drop(folder.name, partition)


def _log_and_partition(folder: LakePath) -> tuple[str, int]:
    return folder.parent.name.removeprefix("log="), int(folder.name.removeprefix("partition="))


def _batches(path: LakePath) -> Iterator[pa.Table]:
    """The rows of a file that is no lake's, a part at a time."""
    with pq.ParquetFile(lake_format.opened(path)) as source:
        for batch in source.iter_batches():
            yield pa.Table.from_batches([batch])


def _first_times(users: pa.Table) -> pa.ChunkedArray:
    """When the first thing in each history became known, 0: there is none."""
    return pa.chunked_array([[times[0] if times else 0 for times in users["times"].to_pylist()]], pa.int64())
