"""Traffic that moves to better variants, and estimates that know of it."""

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import norm

from feature_store.arrays import Float64, Int64
from feature_store.contracts.experiments import Experiment, Plan, Ramp, Variant, claim
from feature_store.definitions import DAY_MS
from offline_training.experiment.allocation import thompson
from offline_training.experiment.analysis import analyse
from offline_training.experiment.outcomes import Outcomes
from tests.experiment_log import running

PLAN = Plan(
    name="test",
    variants=(Variant(name="control"), Variant(name="treatment")),
    allocation="thompson",
    planned_users=4_000,
)
STAGES, USERS, SLATES = 4, 1_000, 10


def stage(rng: np.random.Generator, chance: float, rates: tuple[float, float]) -> tuple[Int64, Int64]:
    """Users who came in with one ramp: their variant, and how many of their slates' items they liked."""
    variant = (rng.random(USERS) >= chance).astype(np.int64)
    taste = rng.beta(4, 4, USERS) * 2
    return variant, rng.binomial(SLATES, np.array(rates)[variant] * taste).astype(np.int64)


def found(stages: list[tuple[Int64, Int64]], chances: list[float], before: Float64 | None = None) -> Outcomes:
    """A slate of ten items for each user, in the order in which they came."""
    variant, liked = (np.concatenate(column) for column in zip(*stages, strict=True))
    users = len(variant)
    reward = (np.arange(SLATES) < liked[:, None]).astype(np.float64).ravel()
    past = np.zeros(users) if before is None else before
    control = np.repeat(chances, USERS)
    return Outcomes(
        users=pa.array([f"u{n}" for n in range(users)]),
        variants=("control", "treatment"),
        variant=variant,
        user=np.arange(users),
        time=np.linspace(0, DAY_MS, users).astype(np.int64),
        latency=np.full(users, np.nan),
        decision=np.repeat(np.arange(users), SLATES),
        item=np.zeros(users * SLATES, dtype=np.int64),
        reward=reward,
        positive=reward > 0,
        before={"reward": past, "impressions": past * 10, "decisions": np.sign(past)},
        chances=np.column_stack([control, 1 - control]),
    )


def moved(seed: int, rates: tuple[float, float], trend: float) -> tuple[Outcomes, list[float]]:
    """An experiment of four ramps, each dealt by what was known before it. trend: by how much users who come later
    like everything more."""
    rng = np.random.default_rng(seed)
    stages: list[tuple[Int64, Int64]] = []
    chances = [0.5]
    for number in range(STAGES):
        grown = 1 + trend * number
        stages.append(stage(rng, chances[-1], (rates[0] * grown, rates[1] * grown)))
        if number < STAGES - 1:
            chances.append(thompson(PLAN, found(stages, chances))["control"])
    return found(stages, chances), chances


def test_traffic_moves_to_what_is_better_and_never_all_of_it() -> None:
    _, chances = moved(0, (0.2, 0.26), 0.0)
    assert chances[0] == 0.5
    assert chances[-1] == pytest.approx(0.1, abs=0.001)  # a fifth of an equal share
    _, chances = moved(0, (0.26, 0.2), 0.0)
    assert chances[-1] == pytest.approx(0.9, abs=0.001)


def test_chances_by_hand() -> None:
    """Of two normal estimates the chance that one is the larger is Phi of the gap over its error."""
    rng = np.random.default_rng(3)
    made = found([stage(rng, 0.5, (0.2, 0.203))], [0.5])
    report = analyse(PLAN, made)
    (effect,) = next(one for one in report.metrics if one.role == "primary").effects
    assert effect.planned.high is not None
    z = effect.planned.value / (effect.planned.high - effect.planned.value) * 1.962
    assert thompson(PLAN, made)["treatment"] == pytest.approx(0.8 * norm.cdf(z) + 0.1, abs=0.01)


def test_few_users_move_nothing() -> None:
    made = found([(np.repeat([0, 1], [980, 20]), np.ones(USERS, dtype=np.int64))], [0.5])
    assert thompson(PLAN, made) == {"control": 0.5, "treatment": 0.5}


def test_an_effect_is_right_though_users_who_come_later_like_everything_more() -> None:
    """The better variant gets more of the later users: plain means would call it better than it is by as much as
    these like everything more. What they did before does, too."""
    plain, weighed = [], []
    for seed in range(20):
        made, _ = moved(seed, (0.15, 0.18), 0.3)
        shown = np.bincount(made.user[made.decision], minlength=len(made.users))
        liked = np.bincount(made.user[made.decision], weights=made.reward, minlength=len(made.users))
        rates = [liked[made.variant == k].sum() / shown[made.variant == k].sum() for k in (0, 1)]
        plain.append(rates[1] / rates[0] - 1)
        (effect,) = next(one for one in analyse(PLAN, made).metrics if one.role == "primary").effects
        weighed.append(effect.always_valid.value)
    assert np.mean(plain) > 0.25
    assert np.mean(weighed) == pytest.approx(0.2, abs=0.03)


def test_tests_without_a_difference_find_none() -> None:
    """Traffic moves by chance alone; the interval for any look excludes 0 in one of a hundred, or fewer."""
    sure = 0
    for seed in range(60):
        made, _ = moved(100 + seed, (0.2, 0.2), 0.3)
        report = analyse(PLAN, made)
        assert not report.sample_ratio.broken
        (effect,) = next(one for one in report.metrics if one.role == "primary").effects
        sure += effect.always_valid.excludes_zero
    assert sure <= 3


def test_the_split_is_held_against_the_chances_that_users_had() -> None:
    rng = np.random.default_rng(0)
    stages = [stage(rng, chance, (0.2, 0.2)) for chance in (0.5, 0.1)]
    assert not analyse(PLAN, found(stages, [0.5, 0.1])).sample_ratio.broken
    broken = analyse(PLAN, found(stages, [0.5, 0.3])).sample_ratio
    assert broken.broken
    assert broken.expected["control"] == pytest.approx(0.5 * USERS + 0.3 * USERS)


def test_a_ramp_deals_its_own_users_and_moves_nobody() -> None:
    half = running("test", share=0.5)
    grown = claim(half, 1.0, ())
    step = Ramp(1, 1.0, grown.buckets - half.buckets, (0.1, 0.9))
    moved = grown.model_copy(update={"ramps": (*half.ramps, step)})
    users = [f"u{n}" for n in range(4_000)]
    first = [user for user in users if half.assign(user) is not None]
    assert [moved.assign(user) for user in first] == [half.assign(user) for user in first]
    later = [user for user in users if half.assign(user) is None]
    assert np.mean([moved.variant_of(user).name == "treatment" for user in later]) == pytest.approx(0.9, abs=0.02)
    assert {moved.chances(user) for user in later} == {(0.1, 0.9)}
    assert {moved.chances(user) for user in first} == {(0.5, 0.5)}
    assert Experiment.model_validate_json(moved.model_dump_json()) == moved
    assert Experiment.model_validate({**half.model_dump(mode="json"), "ramps": [[0, 0.5]]}).ramps == half.ramps
