"""Skew between what was logged and what is recomputed: none on an honest log, and every kind of it is found."""

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.events import Decision, Event
from feature_store.definitions import HistoryEvent
from feature_store.home import Home
from feature_store.sums import NO_ROWS
from feature_store.user_features import UserFeatures
from infra.benchmarks.small_release import build_release, items
from offline_training.evaluation.skew import Agreement, check_features
from offline_training.progress import silent
from offline_training.runs.run import Inputs, Run
from offline_training.runs.runs import SETS, begin, note_published
from online_serving import decisions
from online_serving.decisions import Provenance
from online_serving.parameters import Parameters
from online_serving.pipeline.pipeline import Pipeline
from online_serving.pipeline.request import Request
from online_serving.settings import ServingSettings
from online_serving.snapshot import Snapshot
from streaming.settings import BanditSettings, RewardSettings
from tests.events import KEYRING, feedback
from tests.lakes import put_log

PUBLISHED = [HistoryEvent("i1", "click+", 10), HistoryEvent("i2", "rating-", 20), HistoryEvent("i3", "rating+", 30)]
PAST = PUBLISHED[::-1]  # newest first
USER = KEYRING.user_key("ada")


class Trained:
    """A release, and sets of which it was made and published."""

    def __init__(self, directory: Path) -> None:
        self.home = Home(directory)
        nothing = Inputs(
            job="train", until_ms=None, excluded=[], settings="", seed=0, code="", log="", partitions=1,
            parent_release=None, parent_namespace=None,
        )  # fmt: skip
        run, releases = begin(self.home.runs, nothing, 1), self.home.releases
        self.sets = run / SETS
        self.release = build_release(releases, catalogue=items(40), history_length=8)
        self.snapshot = Snapshot.load(releases, self.release)
        (self.sets / "users").mkdir(parents=True)
        row = {"user": USER, "profile": ["age=5"]} | dict(
            zip(("items", "kinds", "times"), map(list, zip(*PUBLISHED, strict=True)), strict=True)
        )
        pq.write_table(pa.Table.from_pylist([row]), self.sets / "users" / "part-0.parquet")
        note_published(self.home.runs, Run(run), self.release)

    def decide(self, time: int, history: list[HistoryEvent], seen: int) -> Decision:
        """What the pipeline answers with the history (newest first) and parameters up to the offset `seen`."""
        parameters = Parameters(self.snapshot.graph, [NO_ROWS], [0])
        answer = Pipeline(ServingSettings(), BanditSettings()).recommend(
            self.snapshot,
            parameters.table(time),
            Request(4, time=time),
            UserFeatures(["age=5"], history, frozenset()),
            np.random.default_rng(time),
        )
        made_with = Provenance(self.release, "n", [seen], "default", True)
        identity = KEYRING.decision_id(USER, time, time.to_bytes(8, "big"))
        return decisions.build(identity, USER, time, "home", made_with, answer, False)

    def check(self, *events: Event, limit: int = 100) -> dict[str, Agreement]:
        put_log(self.home.aside, *events)
        return check_features(self.home, RewardSettings(), 200, limit, silent)


@pytest.fixture
def home(tmp_path: Path) -> Trained:
    return Trained(tmp_path)


def counts(agreement: Agreement) -> dict[str, int]:
    return {outcome: count for outcome, count in agreement.counts.items() if count}


def test_an_honest_log_has_none(home: Trained) -> None:
    first = home.decide(1_000, PAST, 0)
    a, b = first.items[:2]
    told = [feedback(first, a, received=2_000), feedback(first, b, "dislike", event="2", received=2_000)]
    late = home.decide(2_100, PAST, 1)  # read before the click was folded, which it could not be sure to have seen
    new = [HistoryEvent(a, "click+", 2_000), HistoryEvent(b, "dislike-", 2_000)]
    early = home.decide(2_200, [new[0], *PAST], 1)
    after = home.decide(90_000, [*sorted(new, reverse=True), *PAST], 3)
    found = home.check(first, *told, late, early, after)
    assert counts(found["history"]) == {"equal": 3, "in flight": 1}
    assert counts(found["context"]) == counts(found["predicted"]) == {"equal": 4}
    assert not found["history"].examples


@pytest.mark.parametrize(("time", "outcome"), [(3_999, "equal"), (4_000, "different")])
def test_what_others_had_seen_a_second_before_must_have_been_read(home: Trained, time: int, outcome: str) -> None:
    """The click was folded by 3000 for certain; a history is read at most a second before its decision is made."""
    first = home.decide(1_000, PAST, 0)
    click = feedback(first, first.items[0], received=2_000)
    other = home.decide(3_000, [HistoryEvent(click.item, "click+", 2_000), *PAST], 2)
    stale = home.decide(time, PAST, 2)
    found = home.check(first, click, other, stale)["history"]
    assert counts(found) == (
        {"equal": 2, "in flight": 1} if outcome == "equal" else {"equal": 1, "in flight": 1, outcome: 1}
    )


def test_only_the_newest_decisions_are_looked_at(home: Trained) -> None:
    wrong, right = home.decide(1_000, [], 0), home.decide(2_000, PAST, 0)
    assert counts(home.check(wrong, right, limit=1)["history"]) == {"equal": 1}


@pytest.mark.parametrize(
    ("history", "outcome"),
    [
        ("click published", "equal"),
        ("published", "different"),  # feedback that had been folded long before is missing
        ("click", "forgotten"),  # the published part is gone
        ("future click published", "different"),  # feedback that came after the decision
        ("liked click published", "different"),  # something nobody told
        ("published click", "different"),  # another order
    ],
)
def test_a_history_that_could_not_have_been_read_is_found(home: Trained, history: str, outcome: str) -> None:
    first = home.decide(1_000, PAST, 0)
    a, b = first.items[:2]
    parts = {
        "click": [HistoryEvent(a, "click+", 2_000)],
        "liked": [HistoryEvent(a, "like+", 2_000)],
        "future": [HistoryEvent(b, "click+", 90_500)],
        "published": PAST,
    }
    read = [event for name in history.split() for event in parts[name]]
    second = home.decide(90_000, read, 2)
    found = home.check(
        first, feedback(first, a, received=2_000), second, feedback(first, b, event="2", received=90_500)
    )
    expected = {"equal": 2} if outcome == "equal" else {"equal": 1, outcome: 1}
    assert counts(found["history"]) == expected
    assert found["history"].examples == ([second.id] if outcome == "different" else [])


def test_numbers_that_the_release_does_not_compute_are_found(home: Trained) -> None:
    made = home.decide(1_000, PAST, 0)
    weights = [made.weights[0] + 1e-3, *made.weights[1:]]
    predicted = [*made.predicted[:-1], made.predicted[-1] + 1e-3]
    other = msgspec.structs.replace(made, id="other", time=1_001, weights=weights, predicted=predicted)
    found = home.check(made, other)
    assert [counts(found[name]) for name in ("context", "predicted")] == [{"equal": 1, "different": 1}] * 2
    assert found["predicted"].examples == ["other"]


def test_what_cannot_be_recomputed_is_said_so(home: Trained) -> None:
    live = home.decide(1_000, [HistoryEvent("live", "click+", 40)], 0)
    gone = msgspec.structs.replace(home.decide(2_000, PAST, 0), release="gone")
    found = home.check(live, gone)
    assert counts(found["predicted"]) == counts(found["context"]) == {"unknown": 2}
    assert counts(found["history"]) == {"different": 1, "unknown": 1}


def test_without_decisions_or_published_sets_the_remedy_is_named(home: Trained) -> None:
    with pytest.raises(InvalidInput, match="holds no decision"):
        home.check()
    shutil.rmtree(home.sets)
    with pytest.raises(InvalidInput, match="No users were published"):
        home.check(home.decide(1_000, PAST, 0))
