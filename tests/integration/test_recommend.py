"""`matchloop recommend`: what the API would answer, for many users, in a file."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from feature_store.contracts.errors import InvalidInput, Unavailable
from feature_store.contracts.events import Decision, Event, decode
from feature_store.contracts.identity import Keyring
from feature_store.definitions import HistoryEvent
from infra.benchmarks.small_release import items
from infra.recommending import People, Wanted, listed, recommend_to, trained_on, written
from offline_training.progress import silent
from offline_training.runs.run import Inputs, Run
from offline_training.runs.runs import SETS, begin, note_published
from streaming.kafka import Reader
from tests.api_server import SECRET, Installation, running
from tests.command_line import matchloop
from tests.lakes import put

CATALOGUE = items(60)


@pytest.fixture
def installation(broker: str, redis_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Installation]:
    with Installation(broker, redis_url, tmp_path / "home", request.node.name[:30]) as made:
        made.online.catalogue.add(CATALOGUE)
        yield made


def recommend(made: Installation, people: People, wanted: Wanted, to: Path) -> int:
    with written(to) as rows:
        return asyncio.run(recommend_to(made.config(), people, wanted, rows, silent))


def events(installation: Installation) -> list[Event]:
    offsets = dict.fromkeys(range(installation.kafka.partitions), 0)
    with closing(Reader(installation.broker, installation.kafka.topics.events, offsets)) as reader:
        found: list[Event] = []
        while records := reader.poll(500):
            found += [event for record in records for event in decode(record.value)]
        return found


def published(runs: Path, release: str) -> Path:
    """Sets of which the release was made, and whose users were published."""
    nothing = Inputs(
        job="train", until_ms=None, excluded=[], settings="", seed=0, code="", log="", partitions=1,
        parent_release=None, parent_namespace=None,
    )  # fmt: skip
    run = begin(runs, nothing, 1)
    note_published(runs, Run(run), release)
    return run / SETS


def test_the_file_has_what_the_api_would_answer(installation: Installation, tmp_path: Path) -> None:
    installation.online.deployment.activate(installation.release(CATALOGUE))
    key = Keyring(SECRET).user_key("anna")
    installation.online.users.add_history([(key, HistoryEvent("i7", "click+", 5))])
    ids = tmp_path / "ids.txt"
    ids.write_text("anna\n\n ben \n" + "".join(f"user {n}\n" for n in range(600)), encoding="utf-8")
    asked = {"slate_size": 3, "surface": "mail", "filter": None, "with": ["title", "categories", "year"]}
    assert recommend(installation, listed(ids), Wanted(asked, decided=False), tmp_path / "all.parquet") == 602
    assert recommend(installation, listed(ids), Wanted(asked, decided=False), tmp_path / "all.jsonl") == 602
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text("utf-8").splitlines()]
    assert [row["user"] for row in lines[:3]] == ["anna", "ben", "user 0"]
    with running(installation.config()) as api:
        for row in lines[:2]:
            wanted = {"user_id": row["user"], "slate_size": 3, "surface": "mail", "with": ["title"]}
            answer = api.post("/v1/recommendations:preview", json=wanted).json()
            assert [(item["id"], item["title"]) for item in row["items"]] == [
                (item["id"], item["title"]) for item in answer["items"]
            ]
            assert row["decision_id"] is None
        assert api.get("/v1/users/ben").status_code == 404  # nothing counts as shown
    table = pq.read_table(tmp_path / "all.parquet").to_pylist()
    assert [(row["user"], [item["id"] for item in row["items"]]) for row in table] == [
        (row["user"], [item["id"] for item in row["items"]]) for row in lines
    ]
    assert set(table[0]["items"][0]) == {"id", "score", "title", "categories", "attributes"}
    assert not list(tmp_path.glob(".*.new"))


def test_users_of_the_training_sets_get_decisions_where_they_are_asked_for(
    installation: Installation, tmp_path: Path
) -> None:
    active = installation.release(CATALOGUE)
    installation.online.deployment.activate(active)
    runs, keys = installation.home / "runs", [Keyring(SECRET).user_key(name) for name in ("anna", "ben")]
    with pytest.raises(InvalidInput, match="No users were published"):
        trained_on(runs)
    sets = published(runs, active.release)
    put(sets / "users" / "part-0.parquet", None, [{"user": key} for key in keys])
    asked = Wanted({"slate_size": 2}, decided=True)
    assert recommend(installation, trained_on(runs), asked, tmp_path / "mails.jsonl") == 2
    lines = [json.loads(line) for line in (tmp_path / "mails.jsonl").read_text("utf-8").splitlines()]
    logged = {event.id: event for event in events(installation) if isinstance(event, Decision)}
    assert [logged[row["decision_id"]].user for row in lines] == keys == [row["user"] for row in lines]
    assert [logged[row["decision_id"]].items[:2] for row in lines] == [[i["id"] for i in row["items"]] for row in lines]


def test_what_cannot_be_is_said_and_leaves_no_file(installation: Installation, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"name it .parquet, or .jsonl"), written(tmp_path / "all.csv"):
        pass
    (tmp_path / "none.txt").write_text(" \n")
    with pytest.raises(InvalidInput, match="names nobody"):
        listed(tmp_path / "none.txt")
    with pytest.raises(InvalidInput, match="cannot be read"):
        listed(tmp_path / "missing.txt")
    somebody, asked = People(["anna"], 1, are_keys=False), Wanted({}, decided=False)
    with pytest.raises(Unavailable, match="release"):
        recommend(installation, somebody, asked, tmp_path / "all.jsonl")
    installation.online.deployment.activate(installation.release(CATALOGUE))
    with pytest.raises(InvalidInput, match="slate_size"):
        recommend(installation, somebody, Wanted({"slate_size": 5_000}, decided=False), tmp_path / "all.jsonl")
    with pytest.raises(InvalidInput, match="user_id: String should have at most 256 characters"):
        recommend(installation, People(["x" * 257], 1, are_keys=False), asked, tmp_path / "all.jsonl")
    assert not list(tmp_path.glob("*.jsonl"))
    with pytest.raises(InvalidInput, match="--users FILE, or --all-users"):
        matchloop("recommend", "--to", "all.jsonl")
