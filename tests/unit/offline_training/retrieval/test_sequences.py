"""Sequences: what is predicted from what."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.definitions import USER_TOKENS, HistoryEvent, kind_id
from offline_training.retrieval.sequences import Sequences, batches, targets


def sequences_of(*users: list[tuple[int, int]], negative: frozenset[int] = frozenset()) -> Sequences:
    """Each user's (item, second) in order; items in `negative` are disliked."""
    events = [(user, item, second) for user, own in enumerate(users) for item, second in own]
    start = np.concatenate([[0], np.cumsum([len(own) for own in users])]).astype(np.int64)
    visible = [sum(s < second for _, s in users[user]) for user, _, second in events]
    liked = [item not in negative for _, item, _ in events]
    return Sequences(
        users=[f"u{n}" for n in range(len(users))],
        start=start,
        item=np.array([item for _, item, _ in events], np.int64),
        kind=np.array([int(not good) for good in liked], np.int64),
        kinds=["r+", "r-"],
        positive=np.array(liked, np.bool_),
        time=np.array([1000 * second for _, _, second in events], np.int64),
        visible=np.array(visible, np.int64),
        profile=np.zeros((len(users), USER_TOKENS), np.int64),
        profile_tokens=[[] for _ in users],
    )


def test_histories_are_the_newest_known_events() -> None:
    sequences = sequences_of([(4, 0), (5, 1), (6, 4)], [], [(7, 0)], negative=frozenset({5}))
    read = sequences.histories(np.array([0, 0, 1, 2]), np.array([3, 1, 0, 1]), 2)
    assert read.item.tolist() == [[6, 7], [5, 0], [0, 0], [8, 0]]
    assert read.kind.tolist() == [[kind_id("r-"), kind_id("r+")], [kind_id("r+"), 0], [0, 0], [kind_id("r+"), 0]]
    assert read.gap.tolist() == [[0, 3], [0, 0], [0, 0], [0, 0]]  # 1 + floor(log2(1 + 3 s)), the first has none
    assert read.length.tolist() == [2, 1, 0, 1]
    assert [read.liked_items(row).tolist() for row in range(4)] == [[6], [4], [], [7]]


def test_events_as_serving_reads_them() -> None:
    sequences = sequences_of([(4, 0), (5, 1), (6, 4)], negative=frozenset({5}))
    assert sequences.events(0, 2, "abcdef") == [HistoryEvent("f", "r-", 1000), HistoryEvent("e", "r+", 0)]


def test_another_catalogue_has_other_numbers_and_fewer_items() -> None:
    sequences = sequences_of([(0, 0), (1, 1), (1, 1), (2, 2), (0, 3)], [(1, 5), (2, 6)])
    other = sequences.renumbered(np.array([5, -1, 7]))
    assert other.item.tolist() == [5, 7, 5, 7]
    assert other.start.tolist() == [0, 3, 4]
    assert other.visible.tolist() == [0, 1, 2, 0]
    assert other.time.tolist() == [0, 2000, 3000, 6000]


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_every_positive_event_is_predicted_once_from_what_was_known_strictly_before(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(0, 14), min_size=1, max_size=4))
    steps = [data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)) for n in lengths]
    users = [
        [(10 * user + place, int(np.sum(own[: place + 1]))) for place in range(len(own))]
        for user, own in enumerate(steps)
    ]
    sequences = sequences_of(*users, negative=frozenset({3, 12}))
    until = np.array([data.draw(st.integers(0, n)) for n in lengths], np.int64)
    width = data.draw(st.integers(1, 6))
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    predicted: list[int] = []
    for part in batches(sequences.windows(width, until, rng), data.draw(st.integers(1, 30)), rng):
        history = sequences.cut(part.first, part.end, width)
        assert (part.end - part.first <= width).all()
        wanted = targets(sequences, part, 0, rng)
        assert set(wanted.row.tolist()) == set(range(len(part.end)))  # nothing is read for nothing
        for row, state, event in zip(wanted.row, wanted.state, wanted.event, strict=True):
            user = sequences.user[event]
            known = history.item[row, :state] - 1
            begin = sequences.start[user]
            strictly_before = sequences.item[begin : begin + sequences.visible[event]]
            assert known.tolist() == strictly_before[len(strictly_before) - state :].tolist()
            # With nothing of the history the state is that of somebody who did nothing.
            assert state > 0 or sequences.visible[event] == 0
            predicted.append(int(event))
    first = sequences.start[:-1]
    expected = [
        event
        for event in range(len(sequences.item))
        if sequences.positive[event] and event - first[sequences.user[event]] < until[sequences.user[event]]
    ]
    assert sorted(predicted) == expected


def test_long_sequences_are_cut_elsewhere_in_every_pass() -> None:
    sequences = sequences_of([(item, item) for item in range(100)])
    cuts = {
        tuple(sequences.windows(10, np.array([100]), np.random.default_rng(seed)).first.tolist()) for seed in range(20)
    }
    assert len(cuts) > 3


def test_batches_keep_to_their_size() -> None:
    sequences = sequences_of(*[[(item, item) for item in range(n)] for n in range(1, 40)])
    rng = np.random.default_rng(0)
    windows = sequences.windows(20, np.diff(sequences.start), rng)
    sizes = [len(part.end) * int((part.end - part.first).max()) for part in batches(windows, 100, rng)]
    assert max(sizes) <= 100
    assert len(sizes) < 20
    assert sum(sizes) == pytest.approx(int((windows.end - windows.first).sum()), rel=0.5)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 8), st.integers(0, 9))
def test_with_a_horizon_events_are_predicted_from_up_to_that_much_earlier(
    events: int, width: int, horizon: int, seed: int
) -> None:
    sequences = sequences_of([(item, item) for item in range(events)])
    rng = np.random.default_rng(seed)
    windows = sequences.windows(width, np.array([events]), rng)
    wanted = targets(sequences, windows, horizon, rng)
    known = windows.first[wanted.row] + wanted.state  # of the user's events
    assert np.sort(wanted.event).tolist() == list(range(events))
    assert ((wanted.event - horizon <= known) & (known <= wanted.event)).all()
    # Somebody of whom nothing is known is only ever at the beginning.
    assert (windows.first[wanted.row[wanted.state == 0]] == 0).all()
