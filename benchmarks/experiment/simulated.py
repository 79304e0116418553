"""Experiments whose truth is known: users with a taste of their own who come once or often, in two variants."""

from typing import NamedTuple

import numpy as np

from feature_store.arrays import Float64, Int64
from offline_training.experiment import sample_ratio
from offline_training.experiment.adjusted import always_valid_p, cuped, planned_users, relative
from offline_training.experiment.statistics import Ratio, difference, interval, ratio

CONFIDENCE = 0.95
LOOKS = 20  # one a day
_RATE = 0.1  # positive impressions of all
_SLATE = 5


class People(NamedTuple):
    """Users in the order in which they come. All (u,)."""

    treated: Int64
    impressions: Float64
    reward: Float64
    before: Float64  # reward in as much time before


def people(rng: np.random.Generator, count: int, lift: float = 0.0, share: float = 0.5) -> People:
    """lift: of the treatment, as a share of the rate. share: of users in the control."""
    treated = (rng.random(count) >= share).astype(np.int64)
    taste = rng.beta(1.5, 1.5 * (1 / _RATE - 1), count)
    visits, earlier = rng.geometric(0.4, count), rng.geometric(0.2, count)
    impressions = visits * _SLATE
    rate = np.minimum(taste * (1 + lift * treated), 1.0)
    reward = rng.binomial(impressions, rate)
    before = rng.binomial(earlier * _SLATE, taste)
    return People(treated, impressions.astype(np.float64), reward.astype(np.float64), before.astype(np.float64))


def estimates(found: People, users: int) -> tuple[Ratio, Ratio]:
    """Control and treatment, of those who have come first."""
    treated, impressions, reward = found.treated[:users], found.impressions[:users], found.reward[:users]
    control, treatment = (ratio(reward[treated == k], impressions[treated == k]) for k in (0, 1))
    return control, treatment


def false_positives(seed: int, tests: int, users: int) -> dict[str, float]:
    """Of tests without a difference, the share that ever excluded one in LOOKS looks: by the interval that holds at any
    look, and by the one that is planned for a single look."""
    sequence = fixed = last = 0
    for number in range(tests):
        found = people(np.random.default_rng([seed, 1, number]), users)
        signs = []
        for look in range(1, LOOKS + 1):
            control, treatment = estimates(found, users * look // LOOKS)
            change = relative(treatment, control)
            signs.append(
                (always_valid_p(change, CONFIDENCE, users) < 1 - CONFIDENCE, interval(change, CONFIDENCE).excludes_zero)
            )
        sequence += any(one for one, _ in signs)
        fixed += any(one for _, one in signs)
        last += signs[-1][1]
    return {"sequence": sequence / tests, "fixed_at_every_look": fixed / tests, "fixed_at_the_end": last / tests}


def power(seed: int, tests: int, lift: float, wanted: float) -> dict[str, float]:
    """The share of tests with a true lift in which it is found, with as many users as planning asks for; and theory's.

    The deviation that planning needs is taken from other users (another seed), as from last month's log.
    """
    past = people(np.random.default_rng([seed, 2]), 100_000)
    level = ratio(past.reward, past.impressions)
    deviation = level.standard_error * len(past.reward) ** 0.5
    users = planned_users(deviation, lift * level.value, [0.5, 0.5], 1 - CONFIDENCE, wanted)
    found = any_look = 0
    for number in range(tests):
        tried = people(np.random.default_rng([seed, 3, number]), users, lift)
        control, treatment = estimates(tried, users)
        found += interval(difference(treatment, control), CONFIDENCE).excludes_zero
        any_look += always_valid_p(relative(treatment, control), CONFIDENCE, users) < 1 - CONFIDENCE
    return {"users": users, "theory": wanted, "found": found / tests, "found_at_any_look": any_look / tests}


def variance_removed(seed: int, tests: int, users: int) -> dict[str, float]:
    """How much of a difference's variance CUPED takes away: as it says itself, and as the spread of estimates shows."""
    said, plain, adjusted = [], [], []
    for number in range(tests):
        found = people(np.random.default_rng([seed, 4, number]), users)
        arms = dict(zip(("control", "treatment"), estimates(found, users), strict=True))
        covariates = {
            name: found.before[found.treated == k][:, None] for k, name in enumerate(("control", "treatment"))
        }
        sharper, removed = cuped(arms, covariates)
        said.append(removed)
        plain.append(arms["treatment"].value - arms["control"].value)
        adjusted.append(sharper["treatment"].value - sharper["control"].value)
    return {"said": float(np.mean(said)), "seen": float(1 - np.var(adjusted) / np.var(plain))}


def split_alarms(seed: int, tests: int, users: int, shares: dict[str, float]) -> dict[str, float]:
    """By name, the share of tests of so many planned users in which the check of the split, looked at all the time,
    raised its alarm. shares: of the control in truth; half is due."""
    found = {}
    for place, (name, share) in enumerate(shares.items()):
        alarms = 0
        for number in range(tests):
            rng = np.random.default_rng([seed, 5, place, number])
            arrivals = (rng.random(users) >= share).astype(np.int64)
            alarms += sample_ratio.p_value(arrivals, [0.5, 0.5], users) < sample_ratio.ALARM
        found[name] = alarms / tests
    return found
