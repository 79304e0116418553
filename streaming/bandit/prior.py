"""What sums of many items and edges say together: how far the predictions are off for known and for new items, and how
far an item, and an edge, may be trusted to differ from what is expected of it.

Rewards are held against what was expected. Of an item with sums R and E, E being what slates.expected says of the same
trials, R / E is what it earns in units of what was expected, and with R ~ Poisson(lambda E), lambda ~ Gamma(a, a),

    lambda = (R + a) / (E + a)          the Gamma-Poisson posterior mean (Clayton & Kaldor 1987)
    Var(R - E) = phi (E (1 - e) + E^2 / a)    so that moments over items say what a is (Buehlmann & Straub 1970)

with e the mean expected of a trial, and phi the variance of a reward in units of that of one of 0 or 1: less for graded
ones. What is expected of new items as a group is R / E of them all, each with the weight a / (a + E) that it has where
items differ by a (Buehlmann & Straub 1970): neither a find, shown again and again, nor what fails and is shown no more
says how the next one is.
The fit is a function of the sums alone: the same sums, however they came together, give the same prior. Derived in
infra/decisions/bandit-form.md.
"""

import math
from typing import NamedTuple

import numba
import numpy as np

from feature_store.arrays import Bool, Float64
from feature_store.contracts.errors import InvalidInput
from feature_store.graph import Adjacency
from feature_store.sums import EXPECTED, REWARD, REWARD_SQ, B, D, F, N, S

FIRST_FIT = 20.0  # trials: fewer say nothing
NEAR = 1e-9  # a chance is this far from 0 and 1, so that its odds are finite
_BELIEVED = 0.1  # of the mean reward: what a prediction of 0 is read as
_GROUP, _NEW_GROUP = 5.0, 20.0  # rewards behind the level of a group; of new items that are predicted
# Rewards behind an item or edge, as moments say. An edge has the most wherever there are predictions: these know the
# person better than any early difference of a cluster (infra/decisions/bandit-form.md).
_LEAST, _MOST = 0.1, 100.0
# Behind the slope of a group: a deviation of .5 from 1 is usual, and slopes beyond these limits are not believed.
_STRAIGHT, _FLATTEST, _STEEPEST = 4.0, 0.1, 10.0
_DOUBT = 2.0  # the most rewards that the bonus takes for known of a new item where there are predictions
# A policy that shows what it believes in corrects at once what it overestimates, and learns most where it dares to
# differ: edges do best with less shrinkage than moments of a log at random ask for.
_OPTIMISM = 0.1
_ITEM, _EDGE = 10.0, 30.0  # rewards where moments say nothing ...
_NEW = 0.4  # ... behind a new item that is predicted: it may be like any of those known, and few of these are wanted
_EVIDENCE = 30.0  # how much evidence that is, in squared rewards
_STEPS, _STEP = 50, 0.5  # of Newton's method for a slope
_NO_WEIGHT = 1e-30  # of an edge's trials: none has so little


class Group(NamedTuple):
    """Items that training knew, or those that it did not."""

    odds: float  # factor on the odds of a prediction that makes it right on average
    trust: float  # a: rewards as expected that weigh as much as an item's own
    evidence: float  # the same for the bonus: how much is known of an item that was never shown
    slope: float = 1.0  # how many times as far apart on the log-odds as their predictions items are ...
    centre: float = 0.5  # ... from this chance on


class Prior(NamedTuple):
    """What items and edges are shrunk to, and how strongly. Rewards are in units of `ceiling`."""

    known: Group
    new: Group
    edge: float  # rewards as expected that weigh as much as an edge's own
    least: float  # chance that a prediction of 0 is read as, and others are moved towards 1 by
    dispersion: float  # phi
    ceiling: float  # no item earns more on average, however good: 1 for rewards in [0, 1]

    @classmethod
    def unknown(cls) -> "Prior":
        """Before anything was seen."""
        return cls(Group(1.0, _ITEM, _ITEM), Group(1.0, _NEW, _NEW), _MOST, 0.0, 1.0, 1.0)


def fit(adjacency: Adjacency, edges: Float64, items: Float64, new: Bool, total: Float64, trial: float = 1.0) -> Prior:
    """Fits the prior to edge rows (E, 5), item rows (n, 5) and their sum (5,). new (n,): items that training knew
    nothing of. trial: what a trial of now adds to the rows. Raises InvalidInput if there are not as many edge rows as
    edges."""
    check_rows(adjacency, edges)
    if total[N] < FIRST_FIT * trial:
        return Prior.unknown()
    fitted: Prior = fit_compiled(adjacency, edges, items, new, total, trial)
    return fitted


def check_rows(adjacency: Adjacency, edges: Float64) -> None:
    """Raises InvalidInput unless there is one edge row for each edge: compiled code reads without looking."""
    if len(edges) != adjacency.n_edges:
        raise InvalidInput(f"There are {len(edges)} edge rows for {adjacency.n_edges} edges: they are of two graphs.")


@numba.njit(cache=True, nogil=True)
def refit_at(trials):  # type: ignore[no-untyped-def]  # numba infers it
    """How many trials there must be before a fit to so many is made anew: it goes over all edges."""
    return 1.1 * trials + 10.0


@numba.njit(cache=True, nogil=True)
def shifted(chance, odds):  # type: ignore[no-untyped-def]  # numba infers it
    """The chance whose odds are those of another one times a factor."""
    return chance * odds / (1.0 - chance + chance * odds)


@numba.njit(cache=True, nogil=True)
def tilted(chance, group):  # type: ignore[no-untyped-def]  # numba infers it
    """What is expected of an item of a group in place of its prediction."""
    if group.slope == 1.0:
        return shifted(chance, group.odds)
    centre = odds_of(group.centre)
    odds = group.odds * centre * (odds_of(chance) / centre) ** group.slope
    return min(max(odds / (1.0 + odds), NEAR), 1.0 - NEAR)


@numba.njit(cache=True, nogil=True)
def odds_of(chance):  # type: ignore[no-untyped-def]  # numba infers it
    """Finite and above 0, also for 0 and 1."""
    chance = min(max(chance, NEAR), 1.0 - NEAR)
    return chance / (1.0 - chance)


@numba.njit(cache=True, nogil=True)
def believed(chance, least):  # type: ignore[no-untyped-def]  # numba infers it
    """A prediction as it is read: no order is lost."""
    return min(max(least + (1.0 - least) * chance, NEAR), 1.0 - NEAR)


@numba.njit(cache=True, nogil=True)
def fit_compiled(adjacency, edges, items, new, total, trial=1.0):  # type: ignore[no-untyped-def]  # numba infers it
    """fit, for compiled code: of FIRST_FIT trials of now at least."""
    ceiling = 1.0
    for j in range(len(items)):
        if items[j, REWARD] > 0.0:
            ceiling = max(ceiling, items[j, REWARD_SQ] / items[j, REWARD])
    least = _BELIEVED * min(max(total[REWARD] / ceiling / (total[N] + trial), 0.0), 1.0)
    dispersion = _dispersion(items, ceiling, trial)
    everybody = _sums(items, new, 2, least, ceiling, trial, math.inf)
    general = _ratio(everybody, 1.0, 1.0)
    predicted = total[EXPECTED] > 0.0
    known = fresh = Group(1.0, 1.0, 1.0, 1.0, 0.5)
    expected = np.zeros(len(items))
    for group in range(2):
        differ = predicted and group == 1
        trust = math.inf
        # Some new items are finds, and say as little of the others as failures do: as much as they are alike.
        for _ in range(2 if differ else 1):
            own = _sums(items, new, group, least, ceiling, trial, trust / general)
            mean = own[1] / own[2] if own[2] > 0.0 else everybody[1] / everybody[2]
            ratio = _ratio(own, general, _NEW_GROUP if differ else _GROUP)
            tilt = Group(odds_of(mean * ratio) / odds_of(mean), 1.0, 1.0, 1.0, 0.5)
            if predicted:
                tilt = _tilt(items, new, group, tilt.odds, least, ceiling, trial)
            otherwise = _NEW if differ else _ITEM
            trust = _item_trust(items, new, group, tilt, least, ceiling, dispersion, trial, otherwise, expected)
        found = Group(tilt.odds, trust, min(trust, _DOUBT) if differ else trust, tilt.slope, tilt.centre)
        if group == 0:
            known = found
        else:
            fresh = found
    if predicted:
        return Prior(known, fresh, _MOST, least, dispersion, ceiling)
    excess = squares = 0.0
    for c in range(len(adjacency.newest)):
        at, newer = adjacency.start[c], adjacency.newest[c]
        while at < adjacency.start[c + 1] or newer >= 0:
            j, row, at, newer = next_edge(adjacency, c, at, newer)
            e, n = edges[row], items[j, N]
            if e[S] <= _NO_WEIGHT * trial or n <= 0.0:
                continue
            trust = (fresh.trust if new[j] else known.trust) * trial
            level = (items[j, REWARD] / ceiling + trust) / (expected[j] + trust)
            each = level * expected[j] / n / believed(items[j, EXPECTED] / n, least)
            wanted, weight = each * (least * e[S] + (1.0 - least) * e[F]), e[D] / e[S]
            beyond = (e[B] / ceiling - wanted) / trial
            excess += beyond * beyond - dispersion * wanted * weight * max(1.0 - wanted / e[S], 0.0) / trial
            squares += (wanted * weight / trial) ** 2
    edge = max(_OPTIMISM * _trust(squares, excess, dispersion, _EDGE), _LEAST)
    return Prior(known, fresh, edge, least, dispersion, ceiling)


@numba.njit(cache=True, nogil=True)
def _item_trust(  # type: ignore[no-untyped-def]  # numba infers it
    items, new, group, tilt, least, ceiling, dispersion, trial, otherwise, expected
):
    """a of a group's items, by moments. Writes what is expected of them to `expected` (n,)."""
    excess = squares = 0.0
    for j in range(len(items)):
        if items[j, N] > 0.0 and new[j] == (group == 1):
            expected[j] = items[j, N] * tilted(believed(items[j, EXPECTED] / items[j, N], least), tilt)
            beyond = (items[j, REWARD] / ceiling - expected[j]) / trial
            excess += beyond * beyond - dispersion * expected[j] * (1.0 - expected[j] / items[j, N]) / trial
            squares += (expected[j] / trial) ** 2
    return _trust(squares, excess, dispersion, otherwise)


@numba.njit(cache=True, nogil=True)
def _tilt(items, new, group, odds, least, ceiling, trial):  # type: ignore[no-untyped-def]  # numba infers it
    """How steeply a group's items differ by their predictions: the slope of a logistic regression of their rewards on
    the log-odds of their predictions, with a normal prior round 1. Its intercept is not kept: the odds are such that as
    much is expected as before."""
    mean = total = 0.0
    for j in range(len(items)):
        if items[j, N] > 0.0 and new[j] == (group == 1):
            chance = believed(items[j, EXPECTED] / items[j, N], least)
            expects = items[j, N] * shifted(chance, odds) / trial
            mean += expects * math.log(odds_of(chance))
            total += expects
    if total <= 0.0:
        return Group(odds, 1.0, 1.0, 1.0, 0.5)
    mean /= total
    centre, slope, intercept = 1.0 / (1.0 + math.exp(-mean)), 1.0, 0.0
    for _ in range(_STEPS):
        tilt = Group(odds * math.exp(intercept), 1.0, 1.0, slope, centre)
        score, curvature = _STRAIGHT * (1.0 - slope), _STRAIGHT
        level, steady, both = -intercept, 1.0, 0.0
        for j in range(len(items)):
            if items[j, N] > 0.0 and new[j] == (group == 1):
                chance, n = believed(items[j, EXPECTED] / items[j, N], least), items[j, N] / trial
                x, found = math.log(odds_of(chance)) - mean, tilted(chance, tilt)
                beyond = max(items[j, REWARD], 0.0) / ceiling / trial - n * found
                variance = n * found * (1.0 - found)
                level, steady, both = level + beyond, steady + variance, both + x * variance
                score, curvature = score + x * beyond, curvature + x * x * variance
        determinant = steady * curvature - both * both
        up = min(max((curvature * level - both * score) / determinant, -_STEP), _STEP)
        step = min(max((steady * score - both * level) / determinant, -_STEP), _STEP)
        intercept, slope = intercept + up, min(max(slope + step, _FLATTEST), _STEEPEST)
        if abs(up) + abs(step) < 1e-9:
            break
    tilt = Group(odds, 1.0, 1.0, slope, centre)
    again = 0.0
    for j in range(len(items)):
        if items[j, N] > 0.0 and new[j] == (group == 1):
            again += items[j, N] * tilted(believed(items[j, EXPECTED] / items[j, N], least), tilt) / trial
    return Group(odds * total / again, 1.0, 1.0, slope, centre)


@numba.njit(cache=True, nogil=True)
def _sums(items, new, group, least, ceiling, trial, trust):  # type: ignore[no-untyped-def]  # numba infers it
    """(rewards, predicted, trials) of the known items (0), the new ones (1) or all (2), in trials of now. trust: of an
    item's own, predicted rewards that weigh as much as the group's: what an item says of its group is bounded by it."""
    reward = predicted = trials = 0.0
    for j in range(len(items)):
        n = items[j, N]
        if n > 0.0 and (group == 2 or new[j] == (group == 1)):
            expects = n * believed(items[j, EXPECTED] / n, least)
            weight = 1.0 / (1.0 + expects / (trust * trial))
            reward += weight * items[j, REWARD] / ceiling
            predicted += weight * expects
            trials += weight * n
    return reward / trial, predicted / trial, trials / trial


@numba.njit(cache=True, nogil=True)
def _ratio(sums, general, rewards):  # type: ignore[no-untyped-def]  # numba infers it
    """Observed over predicted, shrunk to a general ratio by so many rewards; above 0."""
    return general * (max(sums[0], 0.0) + rewards) / (general * sums[1] + rewards)


@numba.njit(cache=True, nogil=True)
def _dispersion(items, ceiling, trial):  # type: ignore[no-untyped-def]  # numba infers it
    """The variance of a reward within items in units of that of rewards of 0 and 1 of the same mean, with that of one
    trial."""
    variance = usual = trial
    for j in range(len(items)):
        n, reward = items[j, N], items[j, REWARD] / ceiling
        if n > trial and reward > 0.0:
            variance += max(items[j, REWARD_SQ] / ceiling**2 - reward * reward / n, 0.0) * n / (n - trial)
            usual += max(reward - reward * reward / n, 0.0) * n / (n - trial)
    return min(variance / usual, 1.0)


@numba.njit(cache=True, nogil=True)
def _trust(squares, excess, dispersion, otherwise):  # type: ignore[no-untyped-def]  # numba infers it
    """a by moments, with some evidence that it is what it is otherwise."""
    excess += _EVIDENCE * dispersion / otherwise
    return _MOST if excess <= 0.0 else min(max(dispersion * (squares + _EVIDENCE) / excess, _LEAST), _MOST)


@numba.njit(cache=True, nogil=True)
def next_edge(adjacency, cluster, at, newer):  # type: ignore[no-untyped-def]  # numba infers it
    """(item, row) of a cluster's next edge, and where to go on: the first edges, then those appended."""
    if at < adjacency.start[cluster + 1]:
        return np.int64(adjacency.items[at]), np.int64(at), at + 1, newer
    return np.int64(adjacency.appended[newer]), np.int64(len(adjacency.items) + newer), at, adjacency.older[newer]
