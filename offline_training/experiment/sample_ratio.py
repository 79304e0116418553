"""Whether users fall on variants as they should: a test that may be looked at every day, and looks closest at the users
who were planned."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from scipy import stats
from scipy.special import gammaln

from feature_store.arrays import Float64, Int64

ALARM = 0.01  # the chance that a sound experiment is ever stopped by the check
_PRIOR_USERS = 5_000.0  # about as many users as a mismatch worth stopping for needs
_PLANNED_LOOK = 0.8  # of the alarm's chance goes to one look at as many users as were planned


class SampleRatioCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A look at the users of each variant."""

    observed: dict[str, int]
    expected: dict[str, float]
    p_value: float  # valid at all looks together
    broken: bool
    causes: list[str]  # what it may be, the likeliest first


def always_valid_p(arrivals: Int64, shares: Sequence[float]) -> float:
    """The smallest p-value over all prefixes of the arrivals (u,): each user's variant, as a number, by first visit.

    The Bayes factor of a Dirichlet(k rho) prior against the shares rho is a martingale under them, so that its largest
    value exceeds 1 / p with chance p at most: Lindon and Malek, "Anytime-Valid Inference for Multinomial Count Data"
    (NeurIPS 2022), Eq. 6, with k = 5,000.
    """
    rho = np.asarray(shares) / np.sum(shares)
    if len(arrivals) == 0 or len(rho) < 2:
        return 1.0
    looks = np.unique(np.geomspace(1, len(arrivals), 400).astype(np.int64))
    counts = np.stack([np.cumsum(arrivals == k)[looks - 1] for k in range(len(rho))], axis=1)
    prior = _PRIOR_USERS * rho
    gained = gammaln(prior + counts) - gammaln(prior) - counts * np.log(rho)
    log_factor = gained.sum(axis=1) + gammaln(_PRIOR_USERS) - gammaln(_PRIOR_USERS + looks)
    return float(min(1.0, np.exp(-log_factor.max())))


def p_value(arrivals: Int64, shares: Sequence[float], planned: int) -> float:
    """Valid at all looks together, and sharpest at the planned number of users: the smaller of always_valid_p and of
    Pearson's test of the first `planned` arrivals, each over its share of the alarm's chance (Bonferroni)."""
    found = always_valid_p(arrivals, shares) / (1 - _PLANNED_LOOK)
    if len(shares) > 1 and len(arrivals) >= planned:
        due = planned * np.asarray(shares) / np.sum(shares)
        fixed = stats.chisquare(np.bincount(arrivals[:planned], minlength=len(shares)), due).pvalue
        found = min(found, float(fixed) / _PLANNED_LOOK)
    return min(1.0, found)


def check(
    arrivals: Int64,
    shares: Mapping[str, float],
    planned: int,
    left_out: Mapping[str, int],
    latency: Mapping[str, float],
    chances: Float64 | None = None,
) -> SampleRatioCheck:
    """arrivals: as in always_valid_p, numbers in the order of the shares. planned: users. left_out: see
    outcomes.Outcomes. latency: ms per variant, empty if not measured. chances (u, variants): with which they came,
    where these are not the shares; users with the same chances are checked together."""
    names, counts = list(shares), np.bincount(arrivals, minlength=len(shares))
    if chances is None:
        chances = np.tile(np.array(list(shares.values())), (len(arrivals), 1))
    expected = dict(zip(names, chances.sum(axis=0).tolist(), strict=True))
    observed = dict(zip(names, counts.tolist(), strict=True))
    alike, group = np.unique(chances, axis=0, return_inverse=True)
    by_group = [p_value(arrivals[group == number], row.tolist(), planned) for number, row in enumerate(alike)]
    found = min(1.0, len(alike) * min(by_group, default=1.0))
    broken = found < ALARM
    return SampleRatioCheck(
        observed=observed,
        expected=expected,
        p_value=found,
        broken=broken,
        causes=_causes(observed, expected, left_out, latency) if broken else [],
    )


def _causes(
    observed: Mapping[str, int],
    expected: Mapping[str, float],
    left_out: Mapping[str, int],
    latency: Mapping[str, float],
) -> list[str]:
    short = min(observed, key=lambda name: observed[name] / expected[name])
    causes = []
    if not observed[short]:
        causes.append(f"nobody met {short}: its release or settings may not load (see the API's log)")
    if moved := left_out.get("moved"):
        causes.append(
            f"{moved} decisions are logged with another variant than the assignment gives: two versions of the "
            "program, or something else writes to the log"
        )
    if unknown := left_out.get("unknown_variant"):
        causes.append(f"{unknown} decisions name a variant that the experiment has not")
    if late := left_out.get("out_of_time"):
        causes.append(f"{late} decisions are from before the start or after the stop: a server's clock is wrong")
    if len(latency) == len(observed) and latency[short] > 1.2 * min(latency.values()):
        causes.append(
            f"{short} is slow ({latency[short]:.1f} ms against {min(latency.values()):.1f}): answers that the log does "
            "not take in time are not logged, and their users give up"
        )
    causes.append(
        f"users of {short} are lost between request and log, or do not come at all: compare "
        "matchloop_decisions_unlogged and errors of the API by variant, and filters for bots by the behaviour that a "
        "variant changes"
    )
    return causes
