"""What counts as liked since a watermark, in a lake as the sink writes it."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.bandit_state import Position
from feature_store.contracts.columns import EVENTS
from feature_store.contracts.events import Event, encode
from offline_training.evaluation.unseen import positives_since
from streaming.kafka import Record
from streaming.lake_rows import event_rows
from streaming.settings import RewardSettings
from tests.events import KEYRING, decision, feedback


def test_only_what_was_liked_behind_the_watermark_counts(tmp_path: Path) -> None:
    shown = decision("ada", 1_000, ["a", "b", "c", "d"])
    events: list[Event] = [
        shown,
        feedback(shown, "a"),
        feedback(shown, "b"),
        feedback(shown, "c", "view"),
        feedback(shown, "d"),
    ]
    rows = [
        row
        for offset, event in enumerate(events)
        for row in event_rows(Record(0, offset, b"", encode([event]), 0))
    ]  # fmt: skip
    folder = tmp_path / "events" / "log=l" / "partition=0"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=EVENTS), folder / f"0-{len(events)}.parquet")
    ada = KEYRING.user_key("ada")
    ends = [Position("l", 2), Position("l", 0)]
    assert positives_since(tmp_path, ends, RewardSettings()) == {ada: {"b", "d"}}
    assert positives_since(tmp_path, [Position("l", 5)], RewardSettings()) == {}
    assert positives_since(tmp_path, [Position("another", 0)], RewardSettings()) == {}
