"""What a policy is worth on an imported log of somebody else's decisions, each row one shown item.

Policies that need no more than the log: `uniform` over the actions, `always:ACTION`, and `target`, whose chances were
imported beside those of the policy that made the log; and `learn:NAME`, which learns as it goes. Rewards are taken to
depend on the item and its position alone.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.arrays import Float64, Int64
from feature_store.contracts.errors import InvalidInput
from feature_store.lake_format import opened
from feature_store.lake_path import LakePath
from offline_training.off_policy.estimators import OffPolicyEvaluation, evaluate
from offline_training.off_policy.rejection import Learner, Replayed, rejection_replay
from offline_training.off_policy.reward_model import FOLDS, cross_fitted
from offline_training.off_policy.slate_log import single_decisions

UNIFORM, ALWAYS, TARGET, LEARN = "uniform", "always:", "target", "learn:"


class ForeignLog(NamedTuple):
    """An imported log; n rows."""

    users: Int64  # (n,)
    actions: Int64  # (n,) numbers of names
    names: list[str]
    rewards: Float64
    propensity: Float64
    choices: Float64  # (n,) how many actions there were
    target: Float64 | None
    context: Float64  # (n, d)
    category: Int64 | None = None  # (n,) number of the action's category


def read_log(path: LakePath) -> ForeignLog:
    """Reads an imported log into memory, by time if it has times: about 100 bytes a row, and 8 for each number of its
    context."""
    table = pq.read_table(opened(path))
    if table["time"].null_count == 0:
        table = table.sort_by("time")
    encoded = table["action"].combine_chunks().dictionary_encode()
    actions = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    names = encoded.dictionary.to_pylist()
    n = len(table)
    users = np.arange(n)
    if table["user"].null_count == 0:
        users = (
            table["user"].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)
        )
    counted = table["choices"].null_count == 0
    flat = table["context"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return ForeignLog(
        users=users,
        actions=actions,
        names=names,
        rewards=table["reward"].to_numpy(),
        propensity=table["propensity"].to_numpy(),
        choices=table["choices"].to_numpy().astype(np.float64) if counted else np.full(n, float(len(names))),
        target=table["target"].to_numpy() if table["target"].null_count == 0 else None,
        context=flat.reshape(n, -1) if n else np.zeros((0, 0)),
        category=_category(table),
    )


def value_of(log: ForeignLog, policy: str, reward_range: tuple[float, float] | None = None) -> OffPolicyEvaluation:
    """Evaluates a policy on the log. Its reward model is cross-fitted on it; `target` goes without, for its chances of
    what was not shown are not known.

    Raises InvalidInput for a policy that there is not, an action that the log never shows, or rewards out of range.
    """
    if policy == TARGET:
        if log.target is None:
            raise InvalidInput("The log holds no chances of another policy. Import it with `--map target=COLUMN`.")
        logged = single_decisions(log.users, log.rewards, log.target, log.propensity, category=log.category)
        return evaluate(logged, reward_range=reward_range)
    chances, target = _constant(log, policy)
    model = model_target = None
    if len(np.unique(log.users)) >= FOLDS:
        fitted = cross_fitted(log.users, log.context, log.actions, log.rewards, len(log.names))
        model, model_target = fitted.of(log.actions), fitted.under_always(chances)
    logged = single_decisions(
        log.users, log.rewards, target, log.propensity, model, model_target, category=log.category
    )
    return evaluate(logged, reward_range=reward_range)


def _category(table: pa.Table) -> Int64 | None:
    if "category" not in table.column_names or table["category"].null_count:
        return None
    encoded = table["category"].combine_chunks().dictionary_encode()
    found: Int64 = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return found


def value_of_learner(log: ForeignLog, policy: str) -> Replayed:
    """Replays `learn:NAME` over the log. Raises InvalidInput for a name that there is not, and as rejection_replay
    does."""
    name = policy.removeprefix(LEARN)
    if name not in set(Learner):
        raise InvalidInput(f"There is no learner {name!r}. There are: {', '.join(Learner)}.")
    return rejection_replay(log.actions, log.rewards, log.propensity, len(log.names), Learner(name), seed=0)


def _constant(log: ForeignLog, policy: str) -> tuple[Float64, Float64]:
    """A policy that looks at nothing: its chances (A,), and those of what was shown (n,)."""
    count = len(log.names)
    if policy == UNIFORM:
        return np.full(count, 1 / count), 1 / log.choices
    if not policy.startswith(ALWAYS):
        raise InvalidInput(
            f"There is no policy {policy!r} of an imported log. There are: uniform, always:ACTION, target, learn:NAME."
        )
    action = policy.removeprefix(ALWAYS)
    if action not in log.names:
        some = ", ".join(sorted(log.names)[:10])
        raise InvalidInput(f"The log never shows {action!r}: nothing is known of its value. It shows {some}.")
    number = log.names.index(action)
    return np.eye(count)[number], (log.actions == number).astype(np.float64)
