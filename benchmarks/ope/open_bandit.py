"""Open Bandit, small: each of two policies valued from the other one's log, beside what it earned in its own."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from feature_store.arrays import Float64, Int64
from offline_training.experiment.statistics import Interval
from offline_training.off_policy.estimators import OffPolicyEvaluation, evaluate
from offline_training.off_policy.intervals import clustered, skewed_interval
from offline_training.off_policy.reward_model import cross_fitted
from offline_training.off_policy.slate_log import single_decisions

CAMPAIGNS = ("all", "men", "women")
UNIFORM, THOMPSON = "random", "bts"
_FEATURES = [f"user_feature_{k}" for k in range(4)]
_COMMON = 0.02  # a user feature's value is told apart if so many rows have it


class _Log(NamedTuple):
    time: Int64  # (n,)
    item: Int64
    position: Int64  # from 0
    clicks: Float64
    propensity: Float64
    features: Float64  # (n, d)
    items: int


def both_ways(data: Path) -> dict[str, dict[str, Any]]:
    """By campaign and evaluated policy: the value by estimator from the other policy's log, its own clicks per
    impression, and why the value is refused, if it is."""
    found: dict[str, dict[str, Any]] = {}
    for campaign in CAMPAIGNS:
        logs = {policy: _read(data / "open-bandit-small", policy, campaign) for policy in (UNIFORM, THOMPSON)}
        for policy, other in ((UNIFORM, THOMPSON), (THOMPSON, UNIFORM)):
            evaluation = _evaluated(logs[other], _policy(policy, logs[THOMPSON], logs[other]))
            found.setdefault(campaign, {})[policy] = _described(evaluation, _on_policy(logs[policy]))
    return found


def _read(folder: Path, policy: str, campaign: str) -> _Log:
    table = pq.read_table(folder / f"{policy}_{campaign}.parquet").sort_by("timestamp")
    columns = []
    for name in _FEATURES:
        values, codes, counts = np.unique(table[name].to_numpy(), return_inverse=True, return_counts=True)
        columns += [codes == k for k in range(len(values)) if counts[k] >= _COMMON * len(codes)]
    return _Log(
        time=table["timestamp"].to_numpy().astype(np.int64),
        item=table["item_id"].to_numpy().astype(np.int64),
        position=table["position"].to_numpy().astype(np.int64) - 1,
        clicks=table["click"].to_numpy().astype(np.float64),
        propensity=table["propensity"].to_numpy().astype(np.float64),
        features=np.stack(columns, axis=1).astype(np.float64),
        items=pq.read_metadata(folder / f"items_{campaign}.parquet").num_rows,
    )


def _policy(policy: str, thompson: _Log, at: _Log) -> Float64:
    """(n, items) what a policy would have done at the moments of a log. Thompson sampling's chances changed over the
    week and are known where it showed an item: the nearest in time of the same item and position stands for the
    others, and they are scaled to add up to 1."""
    if policy == UNIFORM:
        return np.full((len(at.time), at.items), 1 / at.items)
    chances = np.zeros((len(at.time), at.items))
    for position in range(int(at.position.max()) + 1):
        rows = np.flatnonzero(at.position == position)
        for item in range(at.items):
            known = np.flatnonzero((thompson.item == item) & (thompson.position == position))
            if len(known):
                after = np.clip(np.searchsorted(thompson.time[known], at.time[rows]), 1, max(len(known) - 1, 1))
                before = known[after - 1]
                following = known[np.minimum(after, len(known) - 1)]
                nearer = np.abs(thompson.time[following] - at.time[rows]) < np.abs(
                    thompson.time[before] - at.time[rows]
                )
                chances[rows, item] = thompson.propensity[np.where(nearer, following, before)]
    chances /= chances.sum(axis=1, keepdims=True)
    return chances


def _evaluated(log: _Log, policy: Float64) -> OffPolicyEvaluation:
    rows = np.arange(len(log.item))
    model = cross_fitted(rows, log.features, log.item, log.clicks, log.items)
    decisions = single_decisions(
        rows, log.clicks, policy[rows, log.item], log.propensity, model.of(log.item), model.under(policy)
    )
    return evaluate(decisions, reward_range=(0.0, 1.0))


def _on_policy(log: _Log) -> Interval:
    rate = float(log.clicks.mean())
    return skewed_interval(clustered(rate, (log.clicks - rate) / len(log.clicks), np.arange(len(log.clicks))), 0.95)


def _described(evaluation: OffPolicyEvaluation, own: Interval) -> dict[str, Any]:
    first = evaluation.read_first()
    assert evaluation.bounds is not None
    intervals = {e.estimator: e.value for e in evaluation.estimates}
    intervals["IPS, betting"] = evaluation.bounds.betting
    low, high = (own.low or 0.0), (own.high or 0.0)
    return {
        "on_policy": own,
        "estimates": intervals,
        "headline": evaluation.headline,
        "effective_size": first.overlap.effective_size,
        "max_weight": first.overlap.max_weight,
        "mean_weight": first.overlap.mean_weight,
        "refused": evaluation.refusal,
        "agrees": (first.value.low or 0.0) <= high and low <= (first.value.high or 0.0),
    }
