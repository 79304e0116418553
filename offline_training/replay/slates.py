"""From replayed moments to the log that estimators read: chances of what was shown, under both policies."""

from collections.abc import Callable
from typing import Any

import numpy as np

from feature_store.arrays import Float64, Int64
from feature_store.contracts.errors import InvalidInput
from offline_training.off_policy.greedy_policy import logging_marginals
from offline_training.off_policy.slate_log import SlateLog
from offline_training.replay.moments import Moment
from online_serving.pipeline.pipeline import Weighed
from streaming.bandit.exploration import Exploration, slate_chances

ROLLOUTS = 100  # per slate, for the chances of an item at a position whatever was before
SAME = 1e-6  # between a probability that was logged and one that is computed again


class SlateLogBuilder:
    """Collects moments as the log that estimators read."""

    def __init__(self, law: Callable[[str, str], Exploration]) -> None:
        """law: how the policy of a variant filled slots on a surface."""
        self._law = law
        self._rng = np.random.default_rng(0)
        self._users: list[str] = []
        self._columns: dict[str, list[Float64]] = {}

    def add(self, moment: Moment, weighed: Weighed) -> None:
        """Takes one decision in."""
        decision, outcome = moment.decision, moment.outcome
        if not decision.shown:
            return
        self._users.append(decision.user)
        chances, slate = chances_of(moment, weighed)
        mean = weighed.view.mean
        there = slate >= 0
        rows = np.arange(len(slate))
        possible = _possible(moment, self._law(decision.variant, decision.surface))
        found = {
            "rewards": outcome.rewards,
            "logging": outcome.probabilities,
            "target": np.where(there, chances[rows, slate], 0.0),
            "model": np.where(there, mean[slate], 0.0),
            "model_target": chances @ mean,
            "unsupported": np.clip(1 - (chances * _mask(possible, moment, weighed)).sum(axis=1), 0, 1),
            **self._marginals(moment, weighed, slate),
        }
        for name, values in found.items():
            self._columns.setdefault(name, []).append(values)

    def log(self, left_out: dict[str, int]) -> SlateLog:
        """The log. Raises InvalidInput if there is none, with what was left out and why."""
        if not self._users:
            why = "; ".join(f"{count:,}: {reason}" for reason, count in sorted(left_out.items())) or "nothing was shown"
            raise InvalidInput(f"No decision can be replayed ({why}).")
        _, users = np.unique(self._users, return_inverse=True)
        sizes = np.array([len(values) for values in self._columns["rewards"]])
        present = np.arange(sizes.max()) < sizes[:, None]

        def padded(name: str, fill: float) -> Float64:
            values = np.full(present.shape, fill)
            values[present] = np.concatenate(self._columns[name])
            return values

        ones = {"logging", "logging_marginal"}
        columns: dict[str, Any] = {name: padded(name, float(name in ones)) for name in self._columns}
        return SlateLog(users, present, **columns)

    def _marginals(self, moment: Moment, weighed: Weighed, slate: Int64) -> dict[str, Float64]:
        decision, s = moment.decision, len(slate)
        law = self._law(decision.variant, decision.surface)
        mean, bonus = np.array(decision.mean), np.array(decision.bonus)
        logging = logging_marginals(mean, bonus, np.arange(s), law, ROLLOUTS, self._rng)
        # What did happen counts as one more rollout, so that nothing that was shown had no chance.
        logging = (ROLLOUTS * logging + np.array(decision.probabilities)) / (ROLLOUTS + 1)
        view, target = weighed.view, np.zeros(s)
        near = _near(view.mean, view.bonus, s, weighed.exploration, slate)
        number = np.full(len(view.mean) + 1, -1, np.int64)
        number[near] = np.arange(len(near))
        there = np.flatnonzero(slate >= 0)
        if len(there):
            # Positions of what the candidate does not have are filled with anything: their chance is 0 all the same.
            asked = np.where(slate >= 0, number[slate], 0)
            found = logging_marginals(
                view.mean[near], view.bonus[near], asked, weighed.exploration, ROLLOUTS, self._rng
            )
            target[there] = found[there]
        return {"target_marginal": target, "logging_marginal": logging}


def chances_of(moment: Moment, weighed: Weighed) -> tuple[Float64, Int64]:
    """The candidate's chances (s, n) of each of its candidates at each position, and the slate among them (s,)."""
    shown = moment.decision.items[: moment.decision.shown]
    number = np.full(moment.snapshot.size + 1, -1, dtype=np.int64)  # the last stands for an item that is not there
    number[weighed.candidates] = np.arange(len(weighed.candidates))
    slate = number[moment.snapshot.graph.positions(shown)]
    return slate_chances(weighed.view.mean, weighed.view.bonus, slate, weighed.exploration), slate


def _possible(moment: Moment, law: Exploration) -> Float64:
    """(s, m) 1 where the policy that made the log could have put an item of its exploration set, given the slots
    before. If its law is not known any more (other settings), whatever of the set was left."""
    decision = moment.decision
    s, m = decision.shown, len(decision.items)
    chances = slate_chances(np.array(decision.mean), np.array(decision.bonus), np.arange(s), law)
    if np.allclose(chances[np.arange(s), np.arange(s)], decision.probabilities, atol=SAME):
        return (chances > 0).astype(np.float64)
    return (np.arange(m) >= np.arange(s)[:, None]).astype(np.float64)


def _mask(possible: Float64, moment: Moment, weighed: Weighed) -> Float64:
    """(s, n) the same for the candidate's candidates."""
    place = np.full(moment.snapshot.size, -1, dtype=np.int64)
    positions = moment.snapshot.graph.positions(moment.decision.items)
    known = np.flatnonzero(positions >= 0)
    place[positions[known]] = known
    at = place[weighed.candidates]
    return np.where(at >= 0, possible[:, at], 0.0)


def _near(mean: Float64, bonus: Float64, slots: int, law: Exploration, slate: Int64) -> Int64:
    """The candidates that have a chance in any of the slots, ties included, and those of the slate."""
    chosen = np.zeros(len(mean), np.bool_)
    chosen[slate[slate >= 0]] = True
    for values, count in ((mean, slots), (np.where(bonus > 0, mean + bonus, -np.inf), slots - 1 + law.top_k)):
        if len(values) > count:
            chosen |= (values >= np.partition(values, -count)[-count]) & np.isfinite(values)
        else:
            chosen |= np.isfinite(values)
    return np.flatnonzero(chosen)
