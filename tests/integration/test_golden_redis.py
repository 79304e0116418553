"""What Redis holds of every version that stored it otherwise, kept under tests/golden, and read by today's code.

Add one with tests/golden_redis.py when what is stored changes, and keep those that can still be read: an upgrade finds
what the version before wrote.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from feature_store.bandit_state import BanditStore
from feature_store.catalogue_writes import ItemChange
from feature_store.contracts.catalogue import Item
from feature_store.contracts.events import Switch
from feature_store.definitions import HistoryEvent
from feature_store.online.deployment import Active, Shadowing
from feature_store.online.store import OnlineStore
from feature_store.shown import Shown, pack
from feature_store.sums import ITEM, SERVED, N
from feature_store.user_features import NOBODY, UserCommands, UserFeatures
from tests import golden_lake, golden_redis
from tests.events import KEYRING, decision, feedback, unlogged
from tests.golden_redis import NAMESPACE, SETTINGS, Command

GOLDEN = sorted((Path(__file__).parents[1] / "golden" / "redis").iterdir(), key=lambda file: int(file.stem))
MADE = decision("ann", golden_lake.NOON, ["a", "b"])


@pytest.fixture
def empty(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
        yield client


@pytest.fixture(params=GOLDEN, ids=lambda file: file.stem)
def stored(empty: redis.Redis, request: Any) -> redis.Redis:
    """A server as a version has left it."""
    for command in msgspec.msgpack.decode(request.param.read_bytes(), type=list[Command]):
        empty.execute_command(*command)
    return empty


def user(client: redis.Redis, name: str) -> UserFeatures:
    commands = UserCommands(SETTINGS)
    return commands.features(*[client.execute_command(*one) for one in commands.read(KEYRING.user_key(name))])


def trials(client: redis.Redis) -> Counter[tuple[str, int]]:
    """Trials served and resolved, by item."""
    rows, found = BanditStore(client, SETTINGS).load(NAMESPACE.id, 0).rows, Counter[tuple[str, int]]()
    for item, cluster, values in zip(rows.item, rows.cluster, rows.values, strict=True):
        if cluster == ITEM:
            found.update({(rows.items[item], column): round(values[column]) for column in (SERVED, N)})
    return +found


def test_what_serves_is_read(stored: redis.Redis) -> None:
    deployment = OnlineStore(stored, SETTINGS).deployment
    deployment.check_secret(KEYRING)
    assert (deployment.active(), deployment.previous()) == (Active("r", "r-1"), Active("q", "q-1"))
    assert deployment.shadowing() == Shadowing("s", "s-1", 0.25)
    assert deployment.namespaces() == ["q-1", "r-1", "s-1"]
    assert list(deployment.retired()) == ["p-1"]


def test_experiments_are_read(stored: redis.Redis) -> None:
    found = OnlineStore(stored, SETTINGS).experiments.read()
    assert (found.version, found.by_name) == (1, {"more": golden_redis.EXPERIMENT})


def test_the_catalogue_is_read_and_keeps_its_places(stored: redis.Redis) -> None:
    catalogue = OnlineStore(stored, SETTINGS).catalogue
    assert dict(catalogue.items()) == {name: item for name, item in golden_lake.CHANGES if item is not None}
    assert catalogue.reconciled(golden_lake.LOG) == 3
    catalogue.reconcile(golden_lake.LOG, [ItemChange(1, "b", Item(id="b"))], 3)
    assert catalogue.get(["b"]) == [None]  # it was deleted at offset 2


def test_users_are_read(stored: redis.Redis) -> None:
    noon = golden_lake.NOON
    assert user(stored, "bob") == UserFeatures(
        ["age=41"],
        [HistoryEvent("c", "like+", noon + 63_000), *golden_redis.BOB.history],
        Shown(pack(golden_redis.BOB.shown)),
    )
    ann = user(stored, "ann")
    assert (ann.history, ann.shown) == ([HistoryEvent("a", "like+", noon + 2_000)], NOBODY.shown)
    assert {"age=6.0", "city=köln", "code=007", "new=true"} < set(ann.profile)
    assert user(stored, "eve") == NOBODY
    users = OnlineStore(stored, SETTINGS).users
    erased = users.erased()
    assert erased.pop(KEYRING.user_key("eve")) == noon + 90_000
    assert erased in ({}, {KEYRING.user_key("visitor"): noon + 95_000})  # merged; the first version had no merges
    assert users.published() == "r"


def test_the_state_is_read_and_goes_on(stored: redis.Redis, tmp_path: Path) -> None:
    state = BanditStore(stored, SETTINGS).load(NAMESPACE.id, 0)
    assert state.position is not None
    offset = state.position.offset
    assert (state.position.log, state.learning) == (golden_lake.LOG, False)
    assert offset in (11, 12)  # of the first version, and with a merge
    assert set(state.open) == {MADE.id, unlogged("bob", golden_lake.NOON + 62_000).id}
    assert trials(stored) == {("a", SERVED): 1, ("b", SERVED): 1, ("a", N): 1}
    later = golden_lake.NOON + 100_000
    liked = feedback(MADE, "b", "like", event="g", received=later)
    golden_redis.fold(stored, tmp_path, offset, [Switch(learning=True, time=later), liked])
    assert trials(stored) == {("a", SERVED): 1, ("b", SERVED): 1, ("a", N): 1, ("b", N): 1}


def test_the_newest_is_what_is_stored_today(empty: redis.Redis, tmp_path: Path) -> None:
    golden_redis.write(empty, tmp_path)
    newest = msgspec.msgpack.decode(GOLDEN[-1].read_bytes(), type=list[Command])
    assert timeless(golden_redis.commands(empty)) == timeless(newest), "What is stored changed: keep it, too."


def timeless(commands: list[Command]) -> list[Command]:
    """Without what the server's clock said: the ids of entries, and since when a namespace is retired."""
    return [
        [*command[:2], *command[3:]] if command[0] == b"XADD" or command[1].endswith(b":retired") else command
        for command in commands
    ]
