"""The project's own loop: what replay says of policies before they run, against what is then measured.

An exploring arm plays a world of `bench pay`, and what it logs is written as an installation would have it. Each
candidate is replayed over that log. In a world that is known the candidate's value can then be worked out in the very
states that the log was in, which is what replay estimates; and the candidate is run by itself, with another seed, which
is what somebody would want to know: it differs by what the candidate learns and shows on the way.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.ope.measured import Tally, mean_interval
from benchmarks.pay.arms import DEFAULT, FROZEN, GREEDY, Arm
from benchmarks.pay.loop import VISIT_MS, run, visitor_key
from benchmarks.pay.release import Prepared
from feature_store.contracts.columns import CATALOGUE, EVENTS, ITEMS
from feature_store.contracts.events import Event
from feature_store.home import Home
from feature_store.namespace import Namespace, Start, namespace_id
from feature_store.sums import NO_ROWS
from offline_training.progress import silent
from offline_training.replay.candidate import Candidate, as_served
from offline_training.replay.replay import Replay, Serving, Stretch, replay
from streaming.lake_rows import row_of
from streaming.settings import BanditSettings, RewardSettings

LOG = "pay"
_RECORDS = 20_000  # in one file of the lake
EXPLORING = Arm("explorer", BanditSettings(explore_share=0.2))
_MOST = 1_500  # decisions replayed


class Contender(NamedTuple):
    """A policy to replay, and the arm that runs it."""

    name: str
    arm: Arm


CONTENDERS = (
    Contender("as it was", EXPLORING),
    Contender("frozen", FROZEN),
    Contender("greedy", GREEDY),
    Contender("half as much exploration", DEFAULT),
    Contender("twice the bonus", EXPLORING._replace(bandit=BanditSettings(explore_share=0.2, alpha=2.0))),
)


def estimates(prepared: Prepared, seed: int, contenders: Sequence[Contender] = CONTENDERS) -> list[dict[str, Any]]:
    """By candidate: likes per impression as estimated, in the log's own states, and as measured in a run of its own."""
    with tempfile.TemporaryDirectory(prefix="matchloop-ope-") as folder:
        home = Home(Path(folder))
        (home.root / "releases").symlink_to(prepared.releases)
        records: list[list[Event]] = []
        run(prepared, EXPLORING, seed, record=records.append)
        write_home(home, prepared, records)
        settings = serving()
        return [_one(home, settings, prepared, contender, seed) for contender in contenders]


def serving() -> Serving:
    """The settings that the log is made with."""
    return Serving(EXPLORING.serving, EXPLORING.bandit, RewardSettings(), {}, shown_kept=100_000)


def write_home(home: Home, prepared: Prepared, records: Sequence[Sequence[Event]]) -> None:
    """What an installation would have of a run: the lake, the namespace, and what was known of users."""
    world = prepared.world
    snapshot = prepared.snapshots[0]
    start = [Start(learning=EXPLORING.learns)]
    Namespace(
        id=namespace_id(prepared.release, 1),
        release=prepared.release,
        log=LOG,
        offsets=[0],
        created=world.moment,
        graph=snapshot.graph,
        base=NO_ROWS,
        starts=start,
        memory_days=EXPLORING.bandit.memory_days,
        steepness=snapshot.manifest.steepness,
    ).save(home.namespaces)
    for first in range(0, len(records), _RECORDS):
        part = records[first : first + _RECORDS]
        rows = [
            {"offset": offset, "position": position, **row_of(event)}
            for offset, events in enumerate(part, first)
            for position, event in enumerate(events)
        ]
        _write(
            home.aside / "events" / f"log={LOG}" / "partition=0" / f"{first}-{first + len(part)}.parquet", rows, EVENTS
        )
    items = [
        {
            "item": item.id,
            "title": item.title,
            "categories": item.categories,
            "attributes": msgspec.json.encode(item.attributes).decode(),
        }
        for item in world.past.items
    ]
    _write(home.aside / "items" / "items.parquet", items, ITEMS)
    turn = VISIT_MS * len(world.visitors)
    entered = [
        {
            "offset": offset,
            "time": world.moment + turn * new.turn,
            "item": new.item.id,
            "deleted": False,
            "title": new.item.title,
            "categories": new.item.categories,
            "attributes": msgspec.json.encode(new.item.attributes).decode(),
            "available": True,
        }
        for offset, new in enumerate(sorted(world.newcomers, key=lambda new: new.turn))
    ]
    if entered:
        _write(
            home.aside / "catalogue" / f"log={LOG}" / "partition=0" / f"0-{len(entered)}.parquet", entered, CATALOGUE
        )
    users = [
        {
            "user": visitor_key(number),
            "profile": list(user.profile),
            "profile_time": 0,
            "items": [event.item for event in user.history],
            "kinds": [event.kind for event in user.history],
            "times": [event.time for event in user.history],
        }
        for number, user in enumerate(prepared.users)
    ]
    _write(home.runs / "0" / "training_sets" / "users" / "part-0.parquet", users, None)


def _one(home: Home, settings: Serving, prepared: Prepared, contender: Contender, seed: int) -> dict[str, Any]:
    tally = Tally(prepared, seed)
    found = replay(home, settings, candidate(contender), Stretch(), silent, tally.watch, _MOST)
    played = run(prepared, contender.arm, seed + 1)
    first = found.evaluation.read_first()
    measured = mean_interval(played.liked, played.shown >= 0, played.visitor)
    there = tally.value()
    return {
        "name": contender.name,
        "estimator": first.estimator,
        "estimate": first.value,
        "effective_size": first.overlap.effective_size,
        "refused": found.refusal,
        "logged": found.logged,
        "in_its_states": there,
        "measured": measured,
        "reproduced": found.reproduced.equal,
        "holds": _holds(found, there),
        "measured_within": _overlaps(found, measured.low, measured.high),
    }


def candidate(contender: Contender) -> Candidate:
    """The arm as a candidate."""
    return as_served(contender.name, contender.arm.bandit, contender.arm.serving)


def _holds(found: Replay, value: float) -> bool:
    return _overlaps(found, value, value)


def _overlaps(found: Replay, low: float | None, high: float | None) -> bool:
    own = found.evaluation.read_first().value
    assert own.low is not None
    assert own.high is not None
    assert low is not None
    assert high is not None
    return own.low <= high and low <= own.high


def _write(path: Path, rows: list[dict[str, Any]], schema: pa.Schema | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
