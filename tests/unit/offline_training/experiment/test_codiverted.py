"""Experiments that part the catalogue: whose items are whose, and what is said of them, where the truth is known."""

import numpy as np
import pyarrow as pa
import pytest

from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.experiments import Experiment, Plan, Variant
from offline_training.experiment.analysis import analyse, with_parts
from offline_training.experiment.codiverted import parts
from offline_training.experiment.outcomes import Outcomes
from offline_training.experiment.page import page
from tests.experiment_log import running

ITEMS = [f"item {n}" for n in range(600)]
PLAN = running("parted", unit="item", variants=(Variant(name="control"), Variant(name="explores")))


def found(experiment: Experiment, users: int, slates: int, seen: dict[str, float], seed: int = 0) -> Outcomes:
    """Users of each variant draw items of its part at random, out of the share of them that the variant shows; they
    like half of them."""
    rng = np.random.default_rng(seed)
    variant = np.array([[v.name for v in experiment.variants].index(experiment.variant_of(f"u{n}").name)
                        for n in range(users)])  # fmt: skip
    part = np.array([experiment.corpus(item) for item in ITEMS])
    user = np.repeat(np.arange(users), slates)
    item = np.zeros(len(user), dtype=np.int64)
    for k, one in enumerate(experiment.variants):
        members = rng.permutation(np.flatnonzero(part == k))
        members = members[: max(1, round(seen[one.name] * len(members)))]
        rows = variant[user] == k
        item[rows] = rng.choice(members, int(rows.sum()))
    reward = (rng.random(len(user)) < 0.5).astype(np.float64)
    return Outcomes(
        users=pa.array([f"u{n}" for n in range(users)]),
        variants=("control", "explores"),
        variant=variant,
        user=user,
        time=np.arange(len(user)),
        latency=np.full(len(user), np.nan),
        decision=np.arange(len(user)),
        item=item,
        reward=reward,
        positive=reward > 0,
        before={name: np.zeros(users) for name in ("reward", "impressions", "decisions")},
        items=pa.array(ITEMS),
    )


def test_items_are_dealt_by_the_weights_and_stay_where_they_are() -> None:
    thirds = (Variant(name="a", weight=2), Variant(name="b", weight=1))
    half, whole = (running("parted", unit="item", variants=thirds, share=share) for share in (0.5, 1.0))
    few, all_of_them = (np.array([one.corpus(f"item {n}") for n in range(6_000)]) for one in (half, whole))
    assert np.mean(few == -1) == pytest.approx(0.5, abs=0.025)
    assert np.mean(all_of_them == 0) == pytest.approx(2 / 3, abs=0.025)
    assert (all_of_them >= 0).all()
    assert (few[few >= 0] == all_of_them[few >= 0]).all()


def test_what_one_variant_finds_more_of_is_told() -> None:
    made = found(PLAN, 1_000, 20, {"control": 0.5, "explores": 0.8})
    control, explores = parts(PLAN, made, ITEMS)
    assert control.items + explores.items == len(ITEMS)
    # 10,000 impressions a variant over 150 or 240 items: whatever is shown is shown and liked more than three times.
    assert control.shown.value == control.discoverable.value == pytest.approx(0.5, abs=0.003)
    assert explores.discoverable.value == pytest.approx(0.8, abs=0.003)
    assert explores.change is not None
    assert explores.change.low is not None
    assert 0 < explores.change.low < 0.6 < (explores.change.high or 0)
    report = with_parts(analyse(PLAN, made), [control, explores])
    assert (report.verdict.answer, report.verdict.variant) == ("better", "explores")
    assert report.verdict.sentence.startswith("explores lets people find more of the catalogue than control: 80.")
    html = page(report)
    assert "What became of the items" in html
    assert html.index("<h2>Numbers") < html.index("What became of the items")


def test_parts_that_do_not_differ_are_told_apart_in_one_of_twenty() -> None:
    """Each test with an assignment, a catalogue and users of its own: items of 600 that are liked more than three
    times, out of 900 likes."""
    sure = 0
    for seed in range(100):
        plan = PLAN.model_copy(update={"name": f"parted{seed}"})
        explores = parts(plan, found(plan, 300, 6, {"control": 1.0, "explores": 1.0}, seed), ITEMS)[1]
        assert explores.change is not None
        sure += explores.change.excludes_zero
    assert sure <= 11  # 5 are due at most; 11 and more by chance in one of a hundred


def test_an_impression_of_another_variants_item_counts_for_none() -> None:
    made = found(PLAN, 200, 2, {"control": 1.0, "explores": 1.0})
    strays = Outcomes(**{**{name: getattr(made, name) for name in made.__slots__}, "items": pa.array(ITEMS[::-1])})
    control, _ = parts(PLAN, strays, ITEMS)
    assert control.shown.value < parts(PLAN, made, ITEMS)[0].shown.value


def test_too_little_is_refused() -> None:
    made = found(PLAN, 30, 2, {"control": 1.0, "explores": 1.0})
    with pytest.raises(
        InvalidInput, match=r"users; it takes one and 20. Let more in: `matchloop experiment ramp parted`"
    ):
        parts(PLAN, made, ITEMS)


def test_weights_of_a_parted_catalogue_stay() -> None:
    with pytest.raises(ValueError, match="parts the catalogue: its weights stay as they are"):
        Plan(name="p", unit="item", allocation="thompson", variants=PLAN.variants)
