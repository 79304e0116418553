"""Statistics of an A/B experiment whose unit of randomisation is the user and whose metric is a ratio.

The metric, reward per impression, is a ratio of two sums over users who return different numbers of times. Impressions
of one user are alike, so every interval here is clustered: it starts from sums per user, or per person where the same
person is a user of several variants. The maths is pure; `compare` puts the parts together for named variants.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from feature_store.arrays import Float64, Int64
from feature_store.contracts.errors import InvalidInput

PER = 1_000  # figures are given per this many impressions
SAMPLE_RATIO_ALARM = 1e-3  # a p-value below it says that the assignment or the logging is broken


class Ratio(NamedTuple):
    """A ratio of sums over users, and each user's influence on it (users,), which sums to zero."""

    value: float
    standard_error: float
    degrees: float
    influence: Float64


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A figure with its two-sided interval. The bounds are None where too few users were seen to tell."""

    value: float
    low: float | None
    high: float | None

    @property
    def excludes_zero(self) -> bool:
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """What one variant got. `per_thousand` is the reward per 1,000 impressions."""

    variant: str
    users: int
    impressions: int
    reward: float
    per_thousand: Interval


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A variant against another, in reward per 1,000 impressions."""

    variant: str
    control: str
    unpaired: Interval  # as between two groups of strangers; holds for one look, planned beforehand
    paired: Interval | None = None  # the same for the same people in both; None: who is the same person is not known
    people: int | None = None  # how many these are
    always_valid: Interval  # holds for all looks together (asymptotic confidence sequence); paired, if people are

    @property
    def planned(self) -> Interval:
        """The narrower of the intervals for one planned look: paired, if people are."""
        return self.unpaired if self.paired is None else self.paired


class SampleRatio(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the users fell on the variants as they should have."""

    observed: dict[str, int]
    expected: dict[str, float]
    chi_square: float
    p_value: float
    broken: bool


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A whole experiment."""

    arms: list[Arm]
    differences: list[Difference]
    sample_ratio: SampleRatio
    confidence: float


def sums_by_user(users: Int64, *columns: Float64) -> list[Float64]:
    """Sums each column (n,) over the rows of a user. users (n,): any integers. Returns arrays (distinct users,)."""
    _, codes = np.unique(users, return_inverse=True)
    return [np.bincount(codes, weights=column).astype(np.float64) for column in columns]


def ratio(rewards: Float64, impressions: Float64) -> Ratio:
    """sum(rewards) / sum(impressions) over users (u,), with its standard error by the delta method.

    With N-bar the mean of the impressions, Var(R) ~ Var(y - R n) / (u N-bar^2): the linearised ratio of Deng, Knoblich
    and Lu, "Applying the Delta Method in Metric Analytics" (KDD 2018), section 3. Raises InvalidInput if nobody saw
    anything.
    """
    total = float(impressions.sum())
    if total <= 0:
        raise InvalidInput("A variant without impressions has no reward per impression. Run the experiment longer.")
    value = float(rewards.sum()) / total
    influence = (rewards - value * impressions) / total
    return Ratio(value, _standard_error(influence), len(rewards) - 1.0, influence)


def interval(estimate: Ratio, confidence: float) -> Interval:
    """The t interval around a ratio or a difference of ratios."""
    if estimate.degrees < 1:
        return Interval(value=estimate.value, low=None, high=None)
    half = float(stats.t.ppf((1 + confidence) / 2, estimate.degrees)) * estimate.standard_error
    return Interval(value=estimate.value, low=estimate.value - half, high=estimate.value + half)


def difference(treatment: Ratio, control: Ratio) -> Ratio:
    """treatment - control, two independent groups of users; degrees of freedom as Welch and Satterthwaite give them."""
    variances = treatment.standard_error**2, control.standard_error**2
    variance = sum(variances)
    degrees = 0.0
    if min(treatment.degrees, control.degrees) >= 1:
        spread = variances[0] ** 2 / treatment.degrees + variances[1] ** 2 / control.degrees
        degrees = variance**2 / spread if spread > 0 else treatment.degrees + control.degrees
    influence = np.concatenate([treatment.influence, -control.influence])
    return Ratio(treatment.value - control.value, math.sqrt(variance), degrees, influence)


def paired_difference(treatment: Ratio, control: Ratio) -> Ratio:
    """treatment - control, two ratios over the same people, row by row; somebody who met one of the variants alone has
    no rewards and no impressions in the other.

    The influence of a person is the difference of theirs, so that what is alike in both cancels: section 3 of Deng et
    al. (see ratio) with the person as the unit. Raises InvalidInput for ratios over different numbers of people.
    """
    if len(treatment.influence) != len(control.influence):
        raise InvalidInput(
            f"Ratios over {len(treatment.influence)} and {len(control.influence)} people cannot be paired. Sum both "
            "over the same people, with zeros for those whom one of them lacks."
        )
    influence = treatment.influence - control.influence
    return Ratio(treatment.value - control.value, _standard_error(influence), len(influence) - 1.0, influence)


def confidence_sequence(n: int, deviation: float, alpha: float, planned: int) -> float:
    """Half-width at n units of the asymptotic confidence sequence, which covers at all n together with 1 - alpha.

    sigma sqrt( 2 (n rho^2 + 1) / (n^2 rho^2) ln( sqrt(n rho^2 + 1) / alpha ) ), Waudby-Smith, Arbour, Sinha, Kennedy
    and Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences", Theorem 2.2. rho is chosen so
    that the sequence is about tightest at `planned` units: rho^2 = (-2 ln alpha + ln(-2 ln alpha + 1)) / planned (their
    Appendix on rho). It must be fixed before looking. deviation: standard deviation of one unit.
    """
    if n < 1 or planned < 1 or not 0 < alpha < 1:
        raise InvalidInput(
            f"A confidence sequence needs n >= 1, planned >= 1 and 0 < alpha < 1; found {n}, {planned}, {alpha}."
        )
    rho_sq = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / planned
    grown = n * rho_sq + 1
    return deviation * math.sqrt(2 * grown / (n**2 * rho_sq) * math.log(math.sqrt(grown) / alpha))


def always_valid(estimate: Ratio, confidence: float, planned: int) -> Interval:
    """The interval of the confidence sequence around a ratio or a difference of ratios, the unit being a user.

    It holds for looking after every user whose visits are complete. A look while users still come back is approximate:
    their later visits belong to units that were counted already.
    """
    n = len(estimate.influence)
    if n < 2:
        return Interval(value=estimate.value, low=None, high=None)
    # se^2 is the variance of a mean of n units of variance n se^2: the two groups together are one stream of users.
    half = confidence_sequence(n, estimate.standard_error * math.sqrt(n), 1 - confidence, planned)
    return Interval(value=estimate.value, low=estimate.value - half, high=estimate.value + half)


def sample_ratio(observed: Mapping[str, int], shares: Mapping[str, float]) -> SampleRatio:
    """Chi-square test of the users seen per variant against their shares. Raises InvalidInput for other names than the
    shares'.
    """
    if unknown := sorted(set(observed) - set(shares)):
        raise InvalidInput(
            f"Variants {unknown} are in the log and not in the experiment {sorted(shares)}. Which experiment ran?"
        )
    names = list(shares)
    counts = np.array([observed.get(name, 0) for name in names], dtype=np.float64)
    expected = counts.sum() * np.array([shares[name] for name in names]) / sum(shares.values())
    if counts.sum() == 0 or len(names) < 2:
        chi_square, p_value = 0.0, 1.0
    else:
        test = stats.chisquare(counts, expected)
        chi_square, p_value = float(test.statistic), float(test.pvalue)
    return SampleRatio(
        observed={name: int(count) for name, count in zip(names, counts, strict=True)},
        expected={name: float(count) for name, count in zip(names, expected, strict=True)},
        chi_square=chi_square,
        p_value=p_value,
        broken=p_value < SAMPLE_RATIO_ALARM,
    )


class Visits(NamedTuple):
    """What users of an experiment got; arrays (n,), one row per decision. people: who a user is, where the same person
    may be several users; None: every user is somebody else."""

    users: Int64
    variants: NDArray[np.str_]
    impressions: Float64
    rewards: Float64
    people: Int64 | None = None


def compare(
    visits: Visits, shares: Mapping[str, float], control: str, planned_users: int, confidence: float = 0.95
) -> Comparison:
    """Compares every variant with the control, over people in pairs if it is known who they are.

    shares: of each variant, in the order of the report. planned_users: for how many users (if they are paired, people)
    the confidence sequence is made tightest. Variants that nobody met are left out. Raises InvalidInput if the control
    was met by nobody.
    """
    met = {name: rows for name in shares if visits.impressions[rows := visits.variants == name].sum() > 0}
    if control not in met:
        raise InvalidInput(
            f"Nobody met the control {control!r}: variants seen are {sorted(met)}. Run the experiment longer."
        )
    arms: list[Arm] = []
    ratios: dict[str, Ratio] = {}
    for name, rows in met.items():
        reward, shown = sums_by_user(visits.users[rows], visits.rewards[rows], visits.impressions[rows])
        ratios[name] = ratio(reward, shown)
        arms.append(
            Arm(
                variant=name,
                users=len(shown),
                impressions=int(shown.sum()),
                reward=float(reward.sum()),
                per_thousand=scaled(interval(ratios[name], confidence)),
            )
        )
    differences = []
    for name in met:
        if name != control:
            unpaired, paired = difference(ratios[name], ratios[control]), None
            if visits.people is not None:
                paired = _paired(visits, visits.people, met[name], met[control])
            differences.append(
                Difference(
                    variant=name,
                    control=control,
                    unpaired=scaled(interval(unpaired, confidence)),
                    paired=None if paired is None else scaled(interval(paired, confidence)),
                    people=None if paired is None else len(paired.influence),
                    always_valid=scaled(always_valid(paired or unpaired, confidence, planned_users)),
                )
            )
    seen = {str(name): len(np.unique(visits.users[visits.variants == name])) for name in np.unique(visits.variants)}
    return Comparison(
        arms=arms, differences=differences, sample_ratio=sample_ratio(seen, shares), confidence=confidence
    )


def _paired(visits: Visits, people: Int64, treatment: NDArray[np.bool_], control: NDArray[np.bool_]) -> Ratio:
    """The paired difference between rows of two variants, over everybody who met one of them."""
    either = treatment | control

    def over_people(rows: NDArray[np.bool_]) -> Ratio:
        columns = (visits.rewards * rows, visits.impressions * rows)
        return ratio(*sums_by_user(people[either], *(column[either] for column in columns)))

    return paired_difference(over_people(treatment), over_people(control))


def scaled(found: Interval) -> Interval:
    """From per impression to per 1,000."""
    return Interval(
        value=found.value * PER,
        low=None if found.low is None else found.low * PER,
        high=None if found.high is None else found.high * PER,
    )


def _standard_error(influence: Float64) -> float:
    users = len(influence)
    return math.sqrt(users / (users - 1) * float(influence @ influence)) if users > 1 else math.inf
