"""What users of an experiment met and did, from the events of the lake: columns, never rows in Python.

Decisions and feedback are joined as offline_training/experiment/impressions.py joins them, by Arrow and NumPy.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_store.arrays import Bool, Float64, Int64
from feature_store.contracts.columns import EVENTS
from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.events import MAX_VALUE
from feature_store.contracts.experiments import Experiment, label_pattern
from feature_store.definitions import DAY_MS
from feature_store.lake_path import LakePath
from streaming.lake_files import folders_of, read_all
from streaming.settings import VIEW, Aggregation, RewardSettings

SKEW_MS = 5 * 60_000  # servers' clocks may differ from the one that started the experiment by so much

BEFORE_MS = 28 * DAY_MS  # how far back what users did before is read

_WHY = ("duplicate", "out_of_time", "unknown_variant", "moved", "tester")
_BEFORE = ("reward", "impressions", "decisions")
_DECISION = ["id", "user", "time", "variant", "items", "shown", "latency_ms"]
_FEEDBACK = ["id", "user", "decision", "item", "type", "value", "received"]
_COLUMNS = list(dict.fromkeys(["kind", "offset", "position", *_DECISION, *_FEEDBACK]))

Sums = Mapping[str, Float64]  # (users,) of each: reward, impressions, positives, decisions, successes, ...


@dataclass(frozen=True, slots=True)
class Outcomes:
    """d decisions on u users, n impressions of them; in order of time within a partition."""

    users: pa.Array  # (u,) user keys
    variants: tuple[str, ...]
    variant: Int64  # (u,) number of the user's variant
    user: Int64  # (d,) number of the user
    time: Int64  # (d,) ms since the epoch
    latency: Float64  # (d,) ms; NaN: not measured
    decision: Int64  # (n,) number of the decision
    item: Int64  # (n,) number of the item
    reward: Float64  # (n,)
    positive: Bool  # (n,)
    before: Sums  # reward, impressions, decisions of the same users before the experiment
    left_out: Mapping[str, int] = field(default_factory=dict)  # decisions, by why they do not count
    items: pa.Array | None = None  # ids of the numbered items
    labels: pa.Array | None = None  # (d,) what the log says of a decision's variants
    chances: Float64 | None = None  # (u, variants) with which each user met each variant; None: the plan's shares

    def sums(self, made: Bool | None = None) -> dict[str, Float64]:
        """By user, of the decisions (d,) that count, None: of all; users who have none of them have zeros."""
        u, d = len(self.users), len(self.user)
        made = np.ones(d, dtype=np.bool_) if made is None else made
        shown = made[self.decision]
        decision, user = self.decision[shown], self.user[self.decision[shown]]
        positives = np.bincount(decision, weights=self.positive[shown], minlength=d)
        timed = made & ~np.isnan(self.latency)
        pairs = np.unique(user * (int(self.item.max(initial=0)) + 1) + self.item[shown])

        def by_user(rows: Int64, weights: NDArray[Any] | None = None) -> Float64:
            return np.bincount(rows, weights=weights, minlength=u).astype(np.float64)

        return {
            "users": (by_user(self.user[made]) > 0).astype(np.float64),
            "decisions": by_user(self.user[made]),
            "impressions": by_user(user),
            "reward": by_user(user, self.reward[shown]),
            "positives": by_user(user, self.positive[shown]),
            "successes": by_user(self.user[made], (positives > 0)[made]),
            "different_items": by_user(pairs // (int(self.item.max(initial=0)) + 1)),
            "latency": by_user(self.user[timed], self.latency[timed]),
            "timed": by_user(self.user[timed]),
        }


def slates_before(found: Outcomes) -> Int64:
    """(d,) how many slates of the experiment a decision's user had met before it."""
    order = np.lexsort((found.time, found.user))
    users = found.user[order]
    begins = np.flatnonzero(np.diff(users, prepend=-1))
    before = np.empty(len(users), dtype=np.int64)
    before[order] = np.arange(len(users)) - np.repeat(begins, np.diff(np.append(begins, len(users))))
    return before


def outcomes(lake: LakePath, logs: Sequence[str], experiment: Experiment, rewards: RewardSettings) -> Outcomes:
    """Of everybody who met a variant, testers aside. Raises InvalidInput if nobody did.

    left_out counts decisions: `duplicate` ids, of which the first counts; `out_of_time`, more than SKEW_MS before the
    start or after the stop, by a clock that is wrong; `unknown_variant`, of a name that the experiment has not;
    `moved`, of users whom the experiment's own assignment puts into another variant than the log; `tester`.
    """
    names = [variant.name for variant in experiment.variants]

    def admit(made: pa.Table, first: Bool) -> _Admitted:
        return _members(made, first, experiment, names)

    found = _read(lake, logs, admit, names, experiment.started or 0, rewards)
    if not len(found.users):
        raise InvalidInput(f"The lake {lake} has no decision on users of experiment {experiment.name!r}. Did it start?")
    if experiment.adaptive:
        chances = np.array([experiment.chances(user) for user in found.users.to_pylist()])
        return replace(found, chances=chances)
    return found


def everybody(lake: LakePath, logs: Sequence[str], since: int, rewards: RewardSettings) -> Outcomes:
    """Of all users since a time, ms since the epoch, as one variant called `all`: what an experiment is planned from.
    Raises InvalidInput if there was nobody."""

    def admit(made: pa.Table, first: Bool) -> _Admitted:
        inside = first & (_numpy(made["time"]) >= since)
        code, keys = _users(made)
        return _Admitted(inside, np.zeros(len(keys), dtype=np.int64), code, keys, dict.fromkeys(_WHY, 0))

    found = _read(lake, logs, admit, ["all"], since, rewards)
    if not len(found.users):
        raise InvalidInput(f"The lake {lake} has no decisions since then: nothing to plan from. Is the sink running?")
    return found


class _Admitted(NamedTuple):
    """Which decisions of a table count."""

    inside: Bool  # (d,)
    variant: Int64  # (k,) of each user; -1: none
    code: Int64  # (d,) number of each decision's user
    keys: pa.Array  # (k,) user keys
    left_out: dict[str, int]


def _members(made: pa.Table, first: Bool, experiment: Experiment, names: list[str]) -> _Admitted:
    left_out = dict.fromkeys(_WHY, 0)
    met = pc.extract_regex(made["variant"], label_pattern(experiment.name))
    inside = _numpy(pc.is_valid(met))

    def leave_out(why: str, rows: Bool) -> None:
        nonlocal inside
        left_out[why] = int(np.count_nonzero(inside & rows))
        inside = inside & ~rows

    leave_out("duplicate", ~first)
    leave_out("tester", _numpy(pc.fill_null(pc.struct_field(met, "forced"), "")) != "")
    variant = _numpy(pc.fill_null(pc.index_in(pc.struct_field(met, "variant"), pa.array(names)), -1)).astype(np.int64)
    leave_out("unknown_variant", variant < 0)
    times = _numpy(made["time"]).astype(np.int64)
    out_of_time = times < (experiment.started or 0) - SKEW_MS
    if experiment.stopped is not None:
        out_of_time |= times > experiment.stopped + SKEW_MS
    leave_out("out_of_time", out_of_time)
    code, keys = _users(made)
    where = np.full(len(keys), -1, dtype=np.int64)
    # One call a user, not a decision: the function that assigned them says where they belong.
    for number in np.unique(code[inside]).tolist():
        where[number] = names.index(experiment.variant_of(keys[number].as_py()).name)
    leave_out("moved", where[code] != variant)
    return _Admitted(inside, where, code, keys, left_out)


def _read(
    lake: LakePath,
    logs: Sequence[str],
    admit: Callable[[pa.Table, Bool], _Admitted],
    names: Sequence[str],
    began: int,
    rewards: RewardSettings,
) -> Outcomes:
    folders = [folder for log in logs for folder in folders_of(lake, log)]
    parts = [_partition(folder, admit, began, rewards) for folder in folders]
    users = pa.chunked_array([part.users for part in parts], pa.string())
    # A user is in one partition of a log, and may be in several logs.
    encoded = users.combine_chunks().dictionary_encode()
    number = encoded.indices.to_numpy().astype(np.int64)
    firsts = np.unique(number, return_index=True)[1]
    items = pa.chunked_array([part.items for part in parts], pa.string()).combine_chunks().dictionary_encode()
    user_from = np.cumsum([0, *(len(part.users) for part in parts)])
    decision_from = np.cumsum([0, *(len(part.user) for part in parts)])
    reward = _joined(part.reward for part in parts)
    return Outcomes(
        users=encoded.dictionary,
        variants=tuple(names),
        variant=_joined(part.variant for part in parts).astype(np.int64)[firsts],
        user=number[_joined(part.user + start for part, start in zip(parts, user_from, strict=False)).astype(np.int64)],
        time=_joined(part.time for part in parts).astype(np.int64),
        latency=_joined(part.latency for part in parts),
        decision=_joined(part.decision + start for part, start in zip(parts, decision_from, strict=False)).astype(
            np.int64
        ),
        item=items.indices.to_numpy().astype(np.int64),
        items=items.dictionary,
        labels=pa.chunked_array([part.labels for part in parts], pa.string()).combine_chunks(),
        reward=reward,
        positive=reward >= rewards.positive,
        before={
            name: np.bincount(number, weights=_joined(part.before[name] for part in parts)).astype(np.float64)
            for name in _BEFORE
        },
        left_out={why: sum(part.left_out[why] for part in parts) for why in _WHY},
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """Of one partition; as in Outcomes."""

    users: pa.Array
    variant: Int64
    user: Int64
    time: Int64
    latency: Float64
    labels: pa.Array
    decision: Int64
    items: pa.Array  # (n,)
    reward: Float64
    before: dict[str, Float64]
    left_out: dict[str, int]


def _partition(
    folder: LakePath, admit: Callable[[pa.Table, Bool], _Admitted], began: int, rewards: RewardSettings
) -> _Part:
    made, feedback = _events(folder, began - BEFORE_MS)
    first = np.zeros(len(made), dtype=np.bool_)
    first[np.unique(_codes(made["id"]), return_index=True)[1]] = True
    admitted = admit(made, first)
    inside, code = admitted.inside, admitted.code
    present = np.unique(code[inside])
    number = np.full(len(admitted.keys), -1, dtype=np.int64)
    number[present] = np.arange(len(present))
    times = _numpy(made["time"]).astype(np.int64)
    earlier = first & ~inside & (times < began) & (number[code] >= 0)
    decision, items, reward = _rewarded(made.filter(pa.array(inside)), feedback, rewards)
    past, _, past_reward = _rewarded(made.filter(pa.array(earlier)), feedback, rewards)
    past_user, count = number[code[earlier]], len(present)
    return _Part(
        users=admitted.keys.take(pa.array(present)),
        variant=admitted.variant[present],
        user=number[code[inside]],
        time=times[inside],
        latency=_numpy(pc.fill_null(made["latency_ms"], np.nan)).astype(np.float64)[inside],
        labels=made["variant"].filter(pa.array(inside)).combine_chunks(),
        decision=decision,
        items=items,
        reward=reward,
        before={
            "reward": np.bincount(past_user[past], weights=past_reward, minlength=count).astype(np.float64),
            "impressions": np.bincount(past_user[past], minlength=count).astype(np.float64),
            "decisions": np.bincount(past_user, minlength=count).astype(np.float64),
        },
        left_out=admitted.left_out,
    )


def _events(folder: LakePath, since: int) -> tuple[pa.Table, pa.Table]:
    """Decisions that were not withdrawn, and feedback, from a time on, each in the order of the log."""
    kind = pc.field("kind")
    rows = read_all(folder, EVENTS, _COLUMNS, kind.isin(["withdrawal", "decision", "feedback"]), since)
    made, received = (kind == "decision") & (pc.field("time") >= since), pc.field("received") >= since
    table = rows.filter((kind == "withdrawal") | made | received)
    table = table.sort_by([("offset", "ascending"), ("position", "ascending")])
    kinds = table["kind"]
    withdrawn = table.filter(pc.equal(kinds, "withdrawal"))["decision"]
    made = table.filter(pc.and_(pc.equal(kinds, "decision"), pc.invert(pc.is_in(table["id"], withdrawn))))
    return made.select(_DECISION), table.filter(pc.equal(kinds, "feedback")).select(_FEEDBACK)


def _rewarded(made: pa.Table, feedback: pa.Table, rewards: RewardSettings) -> tuple[Int64, pa.Array, Float64]:
    """The shown items of decisions: the decision's number (n,), the item (n,), the reward (n,)."""
    lists = made["items"].combine_chunks()
    parent = _numpy(pc.list_parent_indices(lists)).astype(np.int64)
    starts = np.cumsum([0, *_numpy(pc.list_value_length(lists))])[:-1] if len(lists) else np.zeros(0, np.int64)
    shown = _numpy(made["shown"])
    in_slate = np.arange(len(parent)) - starts[parent] < shown[parent] if len(parent) else np.zeros(0, np.bool_)
    decision, items = parent[in_slate], pc.list_flatten(lists).filter(pa.array(in_slate))
    reward = np.full(len(decision), rewards.silence)
    impression, worth, view = _heard(made, decision, items, feedback, rewards)
    if len(impression):
        answered = np.bincount(impression, weights=~view, minlength=len(decision)) > 0
        counts = ~view | ~answered[impression]
        impression, worth = impression[counts], worth[counts]
        order = np.argsort(impression, kind="stable")
        impression, worth = impression[order], worth[order]
        begins = np.flatnonzero(np.diff(impression, prepend=-1))
        match rewards.aggregation:
            case Aggregation.SUM:
                combined = np.add.reduceat(worth, begins)
            case Aggregation.MAX:
                combined = np.maximum.reduceat(worth, begins)
            case Aggregation.LATEST:
                combined = worth[np.append(begins[1:], len(worth)) - 1]
        reward[impression[begins]] = np.clip(combined, rewards.minimum, rewards.maximum)
    return decision, items, reward


def _heard(
    made: pa.Table, decision: Int64, items: pa.Array, feedback: pa.Table, rewards: RewardSettings
) -> tuple[Int64, Float64, Bool]:
    """Feedback that counts, in the order of the log: its impression (f,), what it is worth (f,), whether it is a
    view."""
    row = _numpy(pc.fill_null(pc.index_in(feedback["decision"], made["id"].combine_chunks()), -1)).astype(np.int64)
    kinds = list(rewards.weights)
    kind = _numpy(pc.fill_null(pc.index_in(feedback["type"], pa.array(kinds)), -1)).astype(np.int64)
    value = _numpy(feedback["value"])
    counts = (row >= 0) & (kind >= 0) & (np.abs(value) <= MAX_VALUE)
    owners = made["user"].combine_chunks().take(pa.array(np.maximum(row, 0))) if len(made) else feedback["user"]
    counts &= _numpy(pc.equal(feedback["user"].combine_chunks(), owners))
    named = np.stack([row[counts], _codes(feedback["id"])[counts]], axis=1)
    first = np.zeros(len(named), dtype=np.bool_)
    first[np.unique(named, axis=0, return_index=True)[1]] = True
    counts[counts] = first
    row, kind, value = row[counts], kind[counts], value[counts]
    heard = feedback.filter(pa.array(counts))
    times = _numpy(made["time"]).astype(np.int64)
    in_window = _numpy(heard["received"]).astype(np.int64) - times[row] < rewards.window_seconds * 1000
    # Items as numbers, so that a decision and an item are one.
    both = pa.chunked_array([items, *heard["item"].chunks]).dictionary_encode().combine_chunks()
    code, size = both.indices.to_numpy().astype(np.int64), len(both.dictionary) + 1
    shown, said = decision * size + code[: len(items)], row * size + code[len(items) :]
    order = np.argsort(shown, kind="stable")
    place = np.searchsorted(shown[order], said)
    found = np.zeros(len(said), dtype=np.bool_)
    inside = place < len(shown)
    found[inside] = shown[order][place[inside]] == said[inside]
    found &= in_window
    weights = np.array([rewards.weights[name] for name in kinds])
    thresholds = np.array([rewards.thresholds.get(name, np.nan) for name in kinds])
    kind, value = kind[found], value[found]
    by_threshold = ~np.isnan(thresholds[kind])
    worth = weights[kind] * np.where(by_threshold, value >= np.where(by_threshold, thresholds[kind], 0), value)
    is_view = kind == (kinds.index(VIEW) if VIEW in kinds else -1)
    return order[place[found]], worth, is_view


def _users(made: pa.Table) -> tuple[Int64, pa.Array]:
    keys = made["user"].combine_chunks().dictionary_encode()
    return keys.indices.to_numpy().astype(np.int64), keys.dictionary


def _codes(column: pa.ChunkedArray) -> Int64:
    codes: Int64 = column.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    return codes


def _numpy(column: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    found: NDArray[Any] = (column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])).to_numpy()
    return found


def _joined(parts: Iterable[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate([np.zeros(0), *parts])
