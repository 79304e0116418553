"""What a release answered unseen, beside what was shown to the same people at the same moment."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.dataset as ds

from feature_store.arrays import Float64, Int64
from feature_store.contracts.columns import SHADOW
from feature_store.lake_path import LakePath
from offline_training.data.lake import parquet_files
from offline_training.experiment.impressions import RewardedDecision, rewarded_decisions
from offline_training.experiment.statistics import Interval, interval, ratio, sums_by_user
from offline_training.off_policy.estimators import OffPolicyEvaluation, evaluate
from offline_training.off_policy.slate_log import SlateLog
from streaming.lake_files import event_logs
from streaming.settings import RewardSettings

_CONFIDENCE = 0.95
Row = dict[str, Any]


class ShadowComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Means over slots, with users as the unit of the intervals.

    expected: reward per slot as a model predicts it, of its own slate and of the other's as far as its items were
    candidates, by `MODEL of SLATE`. off_policy: what the release that answered unseen would have earned per slot, from
    the slots that both filled alike, weighted by the champion's exploration; None if the champion did not explore.
    earned: what the champion earned per slot of the same decisions.
    """

    release: str
    champion: str
    requests: int
    users: int
    overlap: Interval  # the share of the items shown that were in the other's slate as well
    same_place: Interval  # and at the same place
    expected: dict[str, float | None]
    earned: Interval | None
    off_policy: OffPolicyEvaluation | None


def shadow_comparison(
    home: Path, lake: LakePath, release: str, champion: str, rewards: RewardSettings
) -> ShadowComparison | None:
    """home: the folder of what was answered unseen. None if the release was never asked beside the champion."""
    if not (files := parquet_files(home / release)):
        return None
    table = ds.dataset(files, schema=SHADOW, format="parquet").to_table(filter=ds.field("champion") == champion)
    rows = [row for row in table.to_pylist() if row["shown"]]
    if not rows:
        return None
    users = _codes([row["user"] for row in rows])
    shown = np.array([len(row["shown"]) for row in rows], np.float64)
    both = np.array([len({*row["shown"]} & {*row["items"]}) for row in rows], np.float64)
    alike = np.array([_alike(row, len(row["shown"])).sum() for row in rows], np.float64)
    logs = event_logs(lake)
    by_id = {row["decision"]: row for row in rows}
    came = [one for one in rewarded_decisions(lake, logs, rewards) if one.id in by_id] if logs else []
    explored = [one for one in came if one.probabilities.min(initial=1.0) < 1]
    return ShadowComparison(
        release=release,
        champion=champion,
        requests=len(rows),
        users=len(np.unique(users)),
        overlap=_share(users, both, shown),
        same_place=_share(users, alike, shown),
        expected={
            f"{release} of its own": _mean([row["predicted"] for row in rows]),
            f"{release} of {champion}'s": _mean([row["shown_predicted_unseen"] for row in rows]),
            f"{champion} of its own": _mean([row["shown_predicted"] for row in rows]),
            f"{champion} of {release}'s": _mean([row["champion_predicted"] for row in rows]),
        },
        earned=_earned(explored) if explored else None,
        off_policy=evaluate(slate_log_of(explored, by_id), _CONFIDENCE) if explored else None,
    )


def slate_log_of(decisions: list[RewardedDecision], by_id: dict[str, Row]) -> SlateLog:
    """The log of the champion as the evaluation of the release needs it: it would have shown what it drew, so that the
    chance of an item at its place is 1 or 0, and weights over all draws average to those of its policy. Predictions are
    its own; of what was no candidate of it, the champion's."""
    width = max(len(one.shown) for one in decisions)
    present = np.zeros((len(decisions), width), np.bool_)
    rewards, target, model, best = (np.zeros(present.shape) for _ in range(4))
    logging = np.ones(present.shape)
    for at, one in enumerate(decisions):
        row, slots = by_id[one.id], len(one.shown)
        present[at, :slots] = True
        rewards[at, :slots], logging[at, :slots] = one.rewards, one.probabilities
        target[at, :slots] = _alike(row, slots)
        known = np.array(row["shown_predicted_unseen"], np.float64)
        model[at, :slots] = np.where(np.isnan(known), row["shown_predicted"], known)
        wanted = row["predicted"][:slots]
        best[at, : len(wanted)] = wanted
    return SlateLog(
        users=_codes([one.user for one in decisions]), present=present, rewards=rewards, target=target, logging=logging,
        model=model, model_target=best,
    )  # fmt: skip


def _alike(row: Row, slots: int) -> Float64:
    """(slots,) 1 where both slates have the same item at the same place."""
    items = row["items"][:slots] + [None] * (slots - len(row["items"]))
    return np.array([mine == theirs for mine, theirs in zip(items, row["shown"], strict=True)], np.float64)


def _share(users: Int64, count: Float64, of: Float64) -> Interval:
    return interval(ratio(*sums_by_user(users, count, of)), _CONFIDENCE)


def _earned(decisions: list[RewardedDecision]) -> Interval:
    users = _codes([one.user for one in decisions])
    earned = np.array([one.rewards.sum() for one in decisions], np.float64)
    return _share(users, earned, np.array([len(one.shown) for one in decisions], np.float64))


def _mean(columns: list[list[float | None]]) -> float | None:
    """Of what is known; None if nothing is."""
    known = [value for column in columns for value in column if value is not None]
    return float(np.mean(known)) if known else None


def _codes(names: list[str]) -> Int64:
    return np.unique(names, return_inverse=True)[1].astype(np.int64)
