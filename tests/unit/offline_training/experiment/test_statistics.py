import math

import numpy as np
import pytest

from feature_store.contracts.errors import InvalidInput
from offline_training.experiment import statistics


def test_ratio_by_hand() -> None:
    # Three users: 1 of 2, 0 of 1, 2 of 3. R = 3/6. Residuals y - R n: 0, -1/2, 1/2; variance of the sum with the
    # correction u/(u-1) = 3/2 is 3/2 * 1/2 = 3/4; divided by 6 impressions: sqrt(3/4)/6.
    found = statistics.ratio(np.array([1.0, 0.0, 2.0]), np.array([2.0, 1.0, 3.0]))
    assert found.value == pytest.approx(3 / 6)
    assert found.standard_error == pytest.approx(math.sqrt(3 / 4) / 6)
    assert found.degrees == 2
    assert found.influence.sum() == pytest.approx(0)


def test_interval_uses_student_with_users_as_units() -> None:
    found = statistics.interval(statistics.ratio(np.array([1.0, 0.0, 2.0]), np.array([2.0, 1.0, 3.0])), 0.95)
    assert found.high is not None
    assert found.high == pytest.approx(0.5 + 4.302653 * math.sqrt(3 / 4) / 6, rel=1e-6)


def test_equal_impressions_give_the_ordinary_t_interval() -> None:
    rewards = np.array([3.0, 1.0, 4.0, 1.0, 5.0])
    found = statistics.ratio(rewards, np.full(5, 10.0))
    assert found.standard_error == pytest.approx(rewards.std(ddof=1) / math.sqrt(5) / 10)


def test_rows_of_a_user_are_added_before_anything_else() -> None:
    users = np.array([7, 3, 7, 7])
    reward, shown = statistics.sums_by_user(users, np.array([1.0, 2.0, 0.0, 3.0]), np.full(4, 10.0))
    assert reward.tolist() == [2.0, 4.0]
    assert shown.tolist() == [10.0, 30.0]


def test_one_user_has_no_interval() -> None:
    found = statistics.interval(statistics.ratio(np.array([1.0]), np.array([4.0])), 0.95)
    assert (found.value, found.low, found.high) == (0.25, None, None)
    assert not found.excludes_zero


def test_no_impressions_is_refused() -> None:
    with pytest.raises(InvalidInput, match="without impressions"):
        statistics.ratio(np.zeros(2), np.zeros(2))


def test_difference_by_hand() -> None:
    one = statistics.ratio(np.array([1.0, 3.0]), np.array([10.0, 10.0]))  # 0.2, se = sqrt(2 * 2 * 0.05^2) = 0.1
    two = statistics.ratio(np.array([0.0, 2.0]), np.array([10.0, 10.0]))  # 0.1, se = 0.1
    change = statistics.difference(one, two)
    assert change.value == pytest.approx(0.1)
    assert change.standard_error == pytest.approx(math.sqrt(0.02))
    assert change.degrees == pytest.approx(2)  # Welch with equal variances and one degree each


def test_confidence_sequence_by_hand() -> None:
    # rho^2 = (-2 ln .05 + ln(1 - 2 ln .05)) / 100 = (5.99146 + 1.94469) / 100
    rho_sq = 0.0793615
    expected = 2.0 * math.sqrt(2 * (50 * rho_sq + 1) / (50**2 * rho_sq) * math.log(math.sqrt(50 * rho_sq + 1) / 0.05))
    assert statistics.confidence_sequence(50, 2.0, 0.05, planned=100) == pytest.approx(expected, rel=1e-5)


def test_confidence_sequence_is_wider_than_one_look() -> None:
    for n in (10, 100, 1_000, 100_000):
        assert statistics.confidence_sequence(n, 1.0, 0.05, planned=1_000) > 1.96 / math.sqrt(n)


def test_confidence_sequence_is_about_tightest_where_planned() -> None:
    at = {planned: statistics.confidence_sequence(500, 1.0, 0.05, planned) for planned in (50, 250, 500, 1_000, 5_000)}
    assert at[500] <= min(at.values()) * 1.001


@pytest.mark.parametrize(("n", "alpha", "planned"), [(0, 0.05, 10), (5, 0.0, 10), (5, 1.0, 10), (5, 0.05, 0)])
def test_confidence_sequence_refuses(n: int, alpha: float, planned: int) -> None:
    with pytest.raises(InvalidInput, match="confidence sequence"):
        statistics.confidence_sequence(n, 1.0, alpha, planned)


def test_intervals_cover_when_users_differ_and_return_unevenly() -> None:
    rng = np.random.default_rng(20)
    covered, naive_covered, runs = 0, 0, 800
    for _ in range(runs):
        taste = rng.beta(2, 6, 150)  # mean 1/4, and independent of how often a user returns
        impressions = (10 * (1 + rng.poisson(3, 150))).astype(np.float64)
        rewards = rng.binomial(impressions.astype(int), taste).astype(np.float64)
        found = statistics.interval(statistics.ratio(rewards, impressions), 0.95)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.25 <= found.high
        naive = 1.96 * math.sqrt(found.value * (1 - found.value) / impressions.sum())
        naive_covered += abs(found.value - 0.25) <= naive
    assert 0.93 <= covered / runs <= 0.97
    assert naive_covered / runs < 0.75  # what an interval over impressions would claim


def test_sequence_survives_peeking_and_a_fixed_interval_does_not() -> None:
    rng = np.random.default_rng(21)
    runs, looks = 400, range(50, 1_001, 25)
    missed_fixed = missed_sequence = 0
    half_sequence = {n: statistics.confidence_sequence(n, 1.0, 0.05, planned=500) for n in looks}
    for _ in range(runs):
        values = rng.normal(size=1_000)
        means = {n: values[:n].mean() for n in looks}
        missed_fixed += any(abs(means[n]) > 1.96 / math.sqrt(n) for n in looks)
        missed_sequence += any(abs(means[n]) > half_sequence[n] for n in looks)
    assert missed_sequence / runs <= 0.05
    assert missed_fixed / runs > 0.15


def test_sample_ratio_by_hand() -> None:
    # (60-50)^2/50 + (40-50)^2/50 = 4, p = P(chi2_1 > 4) = 0.0455
    found = statistics.sample_ratio({"a": 60, "b": 40}, {"a": 0.5, "b": 0.5})
    assert found.chi_square == pytest.approx(4)
    assert found.p_value == pytest.approx(0.0455, abs=1e-4)
    assert not found.broken
    assert statistics.sample_ratio({"a": 600, "b": 400}, {"a": 0.5, "b": 0.5}).broken


def test_sample_ratio_names_strangers() -> None:
    with pytest.raises(InvalidInput, match="'c'"):
        statistics.sample_ratio({"a": 1, "c": 1}, {"a": 0.5, "b": 0.5})


def test_paired_difference_by_hand() -> None:
    # Three people, ten impressions of each in both: 3, 5, 4 against 2, 1, 3. Differences 1, 4, 1: mean 2, variance 3.
    ten = np.full(3, 10.0)
    change = statistics.paired_difference(
        statistics.ratio(np.array([3.0, 5.0, 4.0]), ten), statistics.ratio(np.array([2.0, 1.0, 3.0]), ten)
    )
    assert change.value == pytest.approx(2 / 10)
    assert change.standard_error == pytest.approx(math.sqrt(3 / 3) / 10)
    assert change.degrees == 2
    found = statistics.interval(change, 0.95)
    assert found.low == pytest.approx(0.2 - 4.302653 * 0.1, rel=1e-6)


def test_paired_difference_with_uneven_impressions_by_hand() -> None:
    # On: 2 of 4 and 1 of 2, R = 1/2, residuals 0 and 0. Off: 1 of 1 and 0 of 3, R = 1/4, residuals 3/4 and -3/4, over
    # 4 impressions 3/16 and -3/16. Influences of the difference -3/16 and 3/16: variance 2/1 * 2 * (3/16)^2.
    change = statistics.paired_difference(
        statistics.ratio(np.array([2.0, 1.0]), np.array([4.0, 2.0])),
        statistics.ratio(np.array([1.0, 0.0]), np.array([1.0, 3.0])),
    )
    assert change.value == pytest.approx(1 / 4)
    assert change.standard_error == pytest.approx(math.sqrt(4 * (3 / 16) ** 2))


def test_people_are_paired_row_by_row() -> None:
    one, two = (statistics.ratio(np.ones(n), np.ones(n)) for n in (2, 3))
    with pytest.raises(InvalidInput, match="2 and 3 people"):
        statistics.paired_difference(one, two)


def test_equal_policies_differ_by_nothing_and_pairs_tell_it_more_sharply() -> None:
    rng = np.random.default_rng(22)
    runs, people = 500, 80
    covered, halves = {"paired": 0, "unpaired": 0}, {"paired": 0.0, "unpaired": 0.0}
    for _ in range(runs):
        taste, visits = rng.beta(2, 6, people), 1 + rng.poisson(5, people)
        person = np.tile(np.repeat(np.arange(people), visits), 2)
        variant = np.repeat(np.array(["a", "b"]), visits.sum())
        (change,) = statistics.compare(
            statistics.Visits(
                users=person * 2 + (variant == "b"),
                variants=variant,
                impressions=np.full(len(person), 10.0),
                rewards=rng.binomial(10, taste[person]).astype(np.float64),
                people=person,
            ),
            {"a": 0.5, "b": 0.5},
            "a",
            planned_users=people,
        ).differences
        for name, found in (("paired", change.paired), ("unpaired", change.unpaired)):
            assert found is not None
            assert found.low is not None
            assert found.high is not None
            covered[name] += found.low <= 0 <= found.high
            halves[name] += (found.high - found.low) / 2
    assert 0.93 <= covered["paired"] / runs <= 0.97
    assert covered["unpaired"] / runs > 0.99  # what people have in common is in it twice
    assert halves["paired"] < 0.6 * halves["unpaired"]


def visits(
    users: list[int], variants: list[str], rewards: list[float], people: list[int] | None = None
) -> statistics.Visits:
    return statistics.Visits(
        np.array(users),
        np.array(variants),
        np.full(len(users), 10.0),
        np.array(rewards),
        None if people is None else np.array(people),
    )


def test_compare_end_to_end_by_hand() -> None:
    seen = visits([1, 1, 2, 3, 4, 5], ["on", "on", "on", "off", "off", "off"], [2, 4, 1, 1, 0, 2])
    found = statistics.compare(seen, {"off": 0.5, "on": 0.5}, "off", planned_users=5)
    off, on = found.arms
    assert (off.variant, off.users, off.impressions, off.reward, off.per_thousand.value) == ("off", 3, 30, 3.0, 100.0)
    assert (on.users, on.impressions) == (2, 30)
    assert on.per_thousand.value == pytest.approx(7 / 30 * 1_000)
    (change,) = found.differences
    assert change.unpaired.value == pytest.approx(7 / 30 * 1_000 - 100)
    assert (change.paired, change.planned) == (None, change.unpaired)
    assert change.always_valid.low is not None
    assert change.always_valid.low < change.always_valid.value
    assert found.sample_ratio.observed == {"off": 3, "on": 2}


def test_compare_pairs_people_whoever_else_is_in_the_log() -> None:
    # People 7 and 8 as users 1 to 4; 9 came to "on" alone, 6 to a third variant. On: 3, 5, 1 of 30; off: 2, 1 of 20.
    # Influences on: (3 - 3, 5 - 3, 1 - 3)/30, off: (2 - 1.5, 1 - 1.5, 0)/20: differences -1/40, 11/120, -8/120.
    variants = ["on", "off", "on", "off", "on", "third"]
    seen = visits([1, 2, 3, 4, 5, 6], variants, [3, 2, 5, 1, 1, 9], [7, 7, 8, 8, 9, 6])
    found = statistics.compare(seen, {"off": 0.4, "on": 0.4, "third": 0.2}, "off", planned_users=3)
    change = next(change for change in found.differences if change.variant == "on")
    assert change.paired is not None
    assert (change.planned, change.people) == (change.paired, 3)
    assert change.paired.value == pytest.approx(change.unpaired.value) == pytest.approx((9 / 30 - 3 / 20) * 1_000)
    error = math.sqrt(3 / 2 * ((3 / 120) ** 2 + (11 / 120) ** 2 + (8 / 120) ** 2))
    assert change.paired.high == pytest.approx((0.15 + 4.302653 * error) * 1_000, rel=1e-6)


def test_compare_needs_the_control() -> None:
    with pytest.raises(InvalidInput, match="control 'off'"):
        statistics.compare(visits([1], ["on"], [1]), {"off": 0.5, "on": 0.5}, "off", planned_users=5)
