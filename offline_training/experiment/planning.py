"""How many users an experiment needs, and how long they take to come, from what the log says of them."""

import math

import msgspec
import numpy as np
from scipy.stats import norm

from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.experiments import Plan
from feature_store.definitions import DAY_MS
from offline_training.experiment.adjusted import cuped, planned_users
from offline_training.experiment.analysis import estimates
from offline_training.experiment.metrics import METRICS
from offline_training.experiment.outcomes import Outcomes

POWER = 0.8


class Power(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan needs."""

    metric: str
    value: float  # as it is now
    minimum_effect: float  # as a share of it
    power: float
    users: int  # of all variants together, for one look at the end
    users_at_any_look: int  # for always-valid intervals
    users_a_day: float  # as they come now, new and old
    days: float  # until users_at_any_look have come, with everybody in
    variance_removed: float  # by what users did before; both numbers of users count on it


def power(plan: Plan, past: Outcomes, power: float = POWER) -> Power:
    """past: outcomes.everybody. Raises InvalidInput if the metric was not measured, or is 0."""
    metric = METRICS[plan.metric]
    found = estimates(metric, {"all": past.sums()}).get("all")
    if found is None or found.value == 0:
        raise InvalidInput(f"{plan.metric} is not measured in the log, or is 0 for everybody. Choose another metric.")
    before = np.stack([past.before[name] for name in ("reward", "impressions", "decisions")], axis=1)
    adjusted, removed = cuped({"all": found}, {"all": before}) if before.any() else ({"all": found}, 0.0)
    users = len(found.influence)
    deviation = adjusted["all"].standard_error * math.sqrt(users)
    shares, effect = list(plan.shares().values()), plan.minimum_effect * abs(found.value)
    alpha = (1 - plan.confidence) / (len(shares) - 1)
    fixed = planned_users(deviation, effect, shares, alpha, power)
    sequential = at_any_look(fixed, alpha, power)
    days = max((int(past.time.max()) - int(past.time.min())) / DAY_MS, 1 / 24)
    return Power(
        metric=plan.metric,
        value=found.value * metric.scale,
        minimum_effect=plan.minimum_effect,
        power=power,
        users=fixed,
        users_at_any_look=sequential,
        users_a_day=users / days,
        days=sequential / (users / days),
        variance_removed=removed,
    )


def at_any_look(fixed: int, alpha: float, power: float) -> int:
    """Users with whom an always-valid interval, tightest there, excludes 0 with at least this power at the last look,
    where one planned look needs `fixed`.

    The half-width of statistics.confidence_sequence at n = planned is c standard errors with
    c^2 = 2 (v + 1) / v ln(sqrt(v + 1) / alpha), v = -2 ln alpha + ln(-2 ln alpha + 1); a planned look has
    z_(1 - alpha/2) in its place.
    """
    v = -2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)
    c = math.sqrt(2 * (v + 1) / v * math.log(math.sqrt(v + 1) / alpha))
    found = float(norm.ppf(power))
    return math.ceil(fixed * ((c + found) / (float(norm.ppf(1 - alpha / 2)) + found)) ** 2)
