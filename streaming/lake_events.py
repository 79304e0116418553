"""The events of a log as the lake has them, in the log's order."""

from collections.abc import Iterator

import pyarrow.compute as pc

from feature_store.contracts.columns import EVENTS
from feature_store.contracts.errors import LakeDamaged
from feature_store.contracts.events import Event, Tick, event_time
from feature_store.lake_path import LakePath
from streaming import lake_files
from streaming.lake_files import EXPIRED, covered, files, fitted, partition_folder, partition_folders, stretches
from streaming.lake_rows import event_of


def coverage(lake: LakePath, log_id: str, partition: int) -> int:
    """The first offset of the events topic that the lake does not hold."""
    return covered(partition_folder(lake / "events", log_id, partition))


def first_held(lake: LakePath, log_id: str, partition: int) -> int:
    """The first offset from which read_events can read."""
    return lake_files.begin(partition_folder(lake / "events", log_id, partition))


def first_since(lake: LakePath, log_id: str, partition: int, since: int) -> int:
    """An offset before which no event of a time (ms) from then on stands; what is before it need not be read."""
    folder = partition_folder(lake / "events", log_id, partition)
    for stretch in files(folder):
        late = lake_files.read(stretch.path, EVENTS, ["offset"], since=since)["offset"]
        if len(late):
            return int(late[0].as_py())
    return covered(folder)


def read_events(lake: LakePath, log_id: str, partition: int, start: int) -> Iterator[tuple[int, Event]]:
    """(offset, event) of a partition from the offset on, in log order, exactly as they were in the log; what is marked
    as lost is passed over. Raises LakeDamaged if something else is missing, or was removed by its age."""
    folder = partition_folder(lake / "events", log_id, partition)
    end = start
    for stretch in stretches(folder, start):
        end = stretch.end
        if stretch.path.suffix == EXPIRED:
            raise LakeDamaged(
                f"The offsets {start} to {end - 1} of {folder} were removed by their age (lake.keep_days). What needs "
                "them must begin later."
            )
        if stretch.held:
            for row in lake_files.rows(stretch.path, EVENTS, start):
                yield row["offset"], event_of(row)
    ticks = lake_files.read_ticks(folder)
    if ticks is not None and ticks.start <= end:
        for offset, _, time_ms in ticks.ticks:
            if offset >= max(start, end):
                yield offset, Tick(time=time_ms)


def learning_at(lake: LakePath, log_id: str, partition: int, offset: int) -> bool:
    """Whether the bandit learns from the offset of the partition on: what the last switch before it said."""
    for start, _, path in reversed(files(partition_folder(lake / "events", log_id, partition))):
        if start < offset:
            switches = lake_files.read(path, EVENTS, ["offset", "learning"]).filter(
                pc.field("learning").is_valid() & (pc.field("offset") < offset)
            )
            said = switches["learning"]
            if len(said):
                return bool(said[-1].as_py())
    return True


def log_order(lake: LakePath) -> list[str]:
    """The logs that the lake has events of, in the order in which they began."""
    began: dict[str, int] = {}
    for log, _, folder in partition_folders(lake, "events"):
        held = (stretch for stretch in fitted(folder)[0] if stretch.held)  # damage matters to who reads on
        first = next((row for stretch in held for row in lake_files.rows(stretch.path, EVENTS, 0)), None)
        if first is not None:
            time = event_time(event_of(first))
            began[log] = min(began.get(log, time), time)
    return sorted(began, key=lambda log: began[log])
