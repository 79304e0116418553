"""Logs of experiments in the lake, made by hand or at random."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.contracts.columns import EVENTS
from feature_store.contracts.events import Decision, Event, Feedback
from feature_store.contracts.experiments import Experiment, Ramp, Status, Variant, claim
from streaming.lake_rows import row_of

LOG = "L"


def running(name: str = "test", started: int = 0, share: float = 1.0, **fields: Any) -> Experiment:
    """A running experiment of control and treatment, or of the variants given."""
    variants = fields.pop("variants", (Variant(name="control"), Variant(name="treatment")))
    made = Experiment(name=name, variants=variants, status=Status.RUNNING, ramps=(Ramp(started, share),), **fields)
    return claim(made, share, ())


def users_of(experiment: Experiment, variant: str, count: int) -> list[str]:
    """The first users called u0, u1, ... whom the experiment gives the variant."""
    found: list[str] = []
    n = 0
    while len(found) < count:
        if (met := experiment.assign(f"u{n}")) is not None and met.name == variant:
            found.append(f"u{n}")
        n += 1
    return found


def decision(name: str, user: str, variant: str, time: int, items: Sequence[str], **fields: Any) -> Decision:
    """variant: as the log says it."""
    count = len(items)
    return Decision(
        id=name, user=user, time=time, surface="home", release="r", namespace="n", variant=variant, learns=True,
        offsets=[0], clusters=[0], weights=[1.0], history=[], history_kinds=[], history_times=[], profile=[],
        items=list(items), shown=fields.pop("shown", count), sources=["index"] * count, predicted=[0.1] * count,
        mean=[0.1] * count, bonus=[0.0] * count, edges=[1] * count, probabilities=[1.0] * count, **fields,
    )  # fmt: skip


def feedback(
    name: str, of: Decision, item: str, kind: str = "like", value: float = 1.0, received: int | None = None
) -> Feedback:
    """Of the decision's user."""
    at = of.time + 1 if received is None else received
    return Feedback(id=name, decision=of.id, user=of.user, item=item, type=kind, value=value, time=at, received=at)


def write_log(lake: Path, partitions: Iterable[Sequence[Event]], log: str = LOG) -> None:
    """One file per partition."""
    for partition, events in enumerate(partitions):
        folder = lake / "events" / f"log={log}" / f"partition={partition}"
        folder.mkdir(parents=True)
        rows = [{"offset": n, "position": 0, **row_of(event)} for n, event in enumerate(events)]
        pq.write_table(pa.Table.from_pylist(rows, EVENTS), folder / f"0-{len(rows)}.parquet")
