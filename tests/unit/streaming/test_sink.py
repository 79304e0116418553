"""What the lake tells a reader, without a log."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.contracts.columns import EVENTS
from streaming.sink import learning_at


def _write(lake: Path, start: int, end: int, *rows: dict[str, Any]) -> None:
    folder = lake / "events" / "log=L" / "partition=0"
    folder.mkdir(parents=True, exist_ok=True)
    complete = [{"position": 0, "time": 1, **row} for row in rows]
    pq.write_table(pa.Table.from_pylist(complete, schema=EVENTS), folder / f"{start}-{end}.parquet")


def test_the_bandit_learns_as_the_last_switch_before_the_offset_says(tmp_path: Path) -> None:
    _write(tmp_path, 0, 10, {"offset": 3, "kind": "tick"}, {"offset": 5, "kind": "switch", "learning": False})
    _write(tmp_path, 10, 20, {"offset": 12, "kind": "tick"})
    _write(tmp_path, 20, 30, {"offset": 25, "kind": "switch", "learning": True}, {"offset": 26, "kind": "tick"})
    found = {offset: learning_at(tmp_path, "L", 0, offset) for offset in (0, 5, 6, 20, 25, 26, 40)}
    assert found == {0: True, 5: True, 6: False, 20: False, 25: False, 26: True, 40: True}
    assert learning_at(tmp_path, "another log", 0, 40)
