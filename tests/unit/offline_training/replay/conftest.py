"""A small installation that has served for a while, in process: its lake, namespace and training sets."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.contracts.columns import CATALOGUE, EVENTS, ITEMS
from feature_store.contracts.events import Decision, Event, Feedback
from feature_store.contracts.experiments import UNASSIGNED
from feature_store.definitions import HistoryEvent
from feature_store.home import Home
from feature_store.namespace import Namespace, Start, namespace_id
from feature_store.sums import NO_ROWS
from feature_store.user_features import UserFeatures
from infra.benchmarks.small_release import build_release, items
from offline_training.replay.replay import Serving
from online_serving.decisions import Provenance, build
from online_serving.parameters import Parameters
from online_serving.pipeline.pipeline import Pipeline
from online_serving.pipeline.request import Request
from online_serving.settings import ServingSettings
from online_serving.snapshot import Snapshot
from streaming.fold import Fold
from streaming.lake_rows import row_of
from streaming.settings import BanditSettings, RewardSettings
from tests.events import KEYRING
from tests.lakes import put

BANDIT = BanditSettings(explore_share=0.4, explore_top_k=6)
SERVING = ServingSettings(candidates=12, cluster_candidates=8, list_candidates=0, fresh_candidates=4)
LOG, MADE, VISIT_MS, SLATE, USERS = "a-b", 1_000_000, 1_000, 2, 40
NEW_AT = 200  # the visit before which an item enters


class Installation:
    """40 users come in turn and like items with even numbers half of the time; a new item enters on the way."""

    def __init__(self, root: Path, visits: int) -> None:
        self.home = Home(root)
        catalogue = items(40)
        self.release = build_release(self.home.releases, catalogue=catalogue, history_length=6)
        snapshot = Snapshot.load(self.home.releases, self.release)
        self.snapshot = snapshot.with_items((item.id, item) for item in catalogue)
        self.namespace = Namespace(
            id=namespace_id(self.release, 1), release=self.release, log=LOG, offsets=[0], created=MADE,
            graph=snapshot.graph, base=NO_ROWS, starts=[Start()],
        )  # fmt: skip
        self.namespace.save(self.home.namespaces)
        self.records: list[list[Event]] = []
        self._serve(visits)
        self._write(catalogue)

    @property
    def settings(self) -> Serving:
        return Serving(SERVING, BANDIT, RewardSettings(), {}, shown_kept=1_000)

    @property
    def decisions(self) -> list[Decision]:
        return [event for record in self.records for event in record if isinstance(event, Decision)]

    def rewrite(self, records: Sequence[Sequence[Event]]) -> None:
        """The same installation with another log."""
        rows = [
            {"offset": offset, "position": position, **row_of(event)}
            for offset, record in enumerate(records)
            for position, event in enumerate(record)
        ]
        for old in (self.home.aside / "events").rglob("*.parquet"):
            old.unlink()
        folder = self.home.aside / "events" / f"log={LOG}" / "partition=0"
        put(folder / f"0-{len(records)}.parquet", EVENTS, rows)

    def _serve(self, visits: int) -> None:
        rng, pipeline = np.random.default_rng(3), Pipeline(SERVING, BANDIT)
        parameters = Parameters(self.snapshot.graph, [], [0], self.namespace.decay, self.snapshot.unknown)
        fold = Fold(self.namespace, RewardSettings(), Start())
        shown: dict[str, set[str]] = {}
        history: dict[str, list[HistoryEvent]] = {}
        for visit in range(visits):
            if visit == NEW_AT:
                new = msgspec.structs.replace(items(1)[0], id="new")
                self.snapshot = self.snapshot.with_items([("new", new)])
                parameters.extend(self.snapshot.graph)
            time, user = MADE + VISIT_MS * visit, KEYRING.user_key(str(visit % USERS))
            known = shown.setdefault(user, {"i1"})
            features = UserFeatures(["age=5"], history.get(user, [])[::-1], frozenset(known))
            answer = pipeline.recommend(self.snapshot, parameters.table(time), Request(SLATE, time=time), features, rng)
            known.update(answer.slate)
            made_with = Provenance(self.release, self.namespace.id, parameters.offsets, UNASSIGNED, learns=True)
            name = KEYRING.decision_id(user, time, visit.to_bytes(8, "big"))
            decision = build(name, user, time, "default", made_with, answer, with_candidates=False)
            record: list[Event] = [decision]
            for item in answer.slate:
                if int(item.strip("inew") or 0) % 2 == 0 and rng.random() < 0.5:
                    record.append(
                        Feedback(
                            id=item, decision=name, user=user, item=item, type="like", value=1.0,
                            time=time + 1, received=time + 1,
                        )
                    )  # fmt: skip
                    history.setdefault(user, []).append(HistoryEvent(item, "like+", time + 1))
            self.records.append(record)
            fold.apply(record)
            parameters.apply(0, len(self.records), parameters.located(fold.take().rows))
            parameters.refit(fold.stream_time)

    def _write(self, catalogue: Sequence[object]) -> None:
        self.rewrite(self.records)
        described = [
            {"item": item.id, "title": item.title, "categories": item.categories, "attributes": "{}"}
            for item in items(len(catalogue))
        ]
        put(self.home.aside / "items" / "items.parquet", ITEMS, described)
        change = {
            "offset": 0, "time": MADE + VISIT_MS * NEW_AT, "item": "new", "deleted": False, "title": "Title 0",
            "categories": ["drama"], "attributes": "{}", "available": True,
        }  # fmt: skip
        put(self.home.aside / "catalogue" / f"log={LOG}" / "partition=0" / "0-1.parquet", CATALOGUE, [change])
        users = self.home.runs / "0" / "training_sets" / "users" / "part-0.parquet"
        users.parent.mkdir(parents=True)
        rows = [
            {
                "user": KEYRING.user_key(str(user)), "profile": ["age=5"], "profile_time": 0,
                "items": ["i1"], "kinds": ["rating-"], "times": [10],
            }
            for user in range(USERS)
        ]  # fmt: skip
        pq.write_table(pa.Table.from_pylist(rows), users)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation(tmp_path_factory.mktemp("served"), visits=400)


@pytest.fixture
def tampered(tmp_path: Path) -> Installation:
    """One whose log a test may change."""
    return Installation(tmp_path, visits=60)
