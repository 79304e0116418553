"""Who meets which variant: laws of the assignment, and what is refused."""

import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.experiments import (
    BUCKETS,
    UNASSIGNED,
    Assigned,
    Assignment,
    Experiment,
    Plan,
    Status,
    Variant,
    bucket,
    claim,
    label,
    label_pattern,
    variant_in,
)

USERS = [f"user {n}" for n in range(20_000)]
NAMES = st.from_regex(r"\A[a-z][a-z0-9_-]{0,20}\Z")


def experiment(name: str, share: float, others: tuple[Experiment, ...] = (), **fields: Any) -> Experiment:
    variants = fields.pop("variants", (Variant(name="a"), Variant(name="b")))
    made = Experiment(name=name, variants=variants, status=Status.RUNNING, **fields)
    return claim(made, share, others)


def test_everybody_is_in_one_variant_by_the_weights() -> None:
    made = experiment("thirds", 1.0, variants=(Variant(name="a", weight=2), Variant(name="b", weight=1)))
    met = Counter(found.name for user in USERS if (found := made.assign(user)) is not None)
    assert met.total() == len(USERS)
    assert abs(met["a"] / len(USERS) - 2 / 3) < 4 * (2 / 9 / len(USERS)) ** 0.5
    assert made.shares() == pytest.approx({"a": 2 / 3, "b": 1 / 3})


@given(st.lists(st.integers(0, BUCKETS), min_size=1, max_size=4).map(sorted))
def test_a_ramp_moves_nobody_who_was_in(steps: list[int]) -> None:
    made, users = experiment("ramped", 0.0), USERS[:200]
    for step in steps:
        before = {user: made.assign(user) for user in users}
        made = claim(made, step / BUCKETS, ())
        assert len(made.buckets) == step
        assert all(made.assign(user) == variant for user, variant in before.items() if variant is not None)


def test_experiments_of_one_layer_share_no_user_and_of_two_layers_are_independent() -> None:
    first = experiment("first", 0.4)
    second = experiment("second", 0.6, (first,))
    third = experiment("third", 0.5, layer="other")
    met = Counter(Assignment([first, second, third]).of(user) for user in USERS)
    counts: Counter[tuple[str, ...]] = Counter()
    for assigned, count in met.items():
        counts[tuple(one.experiment for one in assigned)] += count
    # Layers in the order of their names: default, other.
    assert set(counts) == {("first",), ("second",), ("first", "third"), ("second", "third")}
    assert counts["first", "third"] / len(USERS) == pytest.approx(0.2, abs=0.012)
    both = sum(n for assigned, n in met.items() if [one.variant for one in assigned] == ["a", "a"])
    assert both / len(USERS) == pytest.approx(0.5 * 0.5 * 0.5, abs=0.01)


def test_a_new_experiment_deals_the_users_of_an_old_one_anew() -> None:
    old, new = experiment("old", 1.0), experiment("new", 1.0)
    same = sum(old.assign(user) == new.assign(user) for user in USERS)
    assert same / len(USERS) == pytest.approx(0.5, abs=0.015)


def test_assignments_are_what_they_were() -> None:
    """Written down once: a change of the hash would move everybody."""
    made = experiment("forever", 0.5)
    found = [getattr(made.assign(f"user {n}"), "name", None) for n in range(8)]
    assert found == ["a", None, "a", None, "b", "a", None, None]
    assert [bucket("default", f"user {n}") for n in range(4)] == [369, 803, 92, 856]


def test_testers_meet_their_variant_whatever_their_bucket_and_are_told_apart() -> None:
    made = experiment("tried", 0.0, testers={"me": "b"})
    assert Assignment([made]).of("me") == (Assigned("tried", "b", True),)
    assert Assignment([made]).of("somebody") == ()
    assert label([Assigned("tried", "b", True)]) == "tried=b!"
    assert variant_in("tried=b!", "tried") is None


@given(st.lists(st.tuples(NAMES, NAMES, st.booleans()), unique_by=lambda one: one[0], max_size=4), NAMES)
def test_a_label_says_what_was_assigned(assigned: list[tuple[str, str, bool]], other: str) -> None:
    text = label([Assigned(*one) for one in assigned])
    assert (text == UNASSIGNED) is (assigned == [])
    for name, variant, forced in assigned:
        assert variant_in(text, name) == (None if forced else variant)
        found = re.search(label_pattern(name), text)
        assert found is not None
        assert (found["variant"], found["forced"]) == (variant, "!" if forced else "")
    if other not in {name for name, *_ in assigned}:
        assert variant_in(text, other) is None


def test_stopped_experiments_and_drafts_assign_nobody() -> None:
    made = experiment("over", 1.0)
    for status in (Status.STOPPED, Status.DRAFT):
        assert Assignment([made.model_copy(update={"status": status})]).of("anybody") == ()


@pytest.mark.parametrize(
    ("share", "message"),
    [
        (0.1, "has 20.0% of the users: with 10.0% some would be moved out"),
        (1.5, "is none of 0, 0.001"),
        (0.3333, "is none of 0, 0.001"),
        (0.6, "wants 60.0% of layer 'default', of which rival have 50.0%"),
    ],
)
def test_a_share_that_cannot_be_is_refused(share: float, message: str) -> None:
    rival = experiment("rival", 0.5)
    made = experiment("made", 0.2, (rival,))
    with pytest.raises(InvalidInput, match=message):
        claim(made, share, (rival, made))


def test_two_that_claim_the_same_users_are_refused() -> None:
    with pytest.raises(InvalidInput, match="'one' and 'two' both claim users of layer 'default'"):
        Assignment([experiment("one", 0.5), experiment("two", 0.5)])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"variants": [{"name": "a"}]}, "at least 2 items"),
        ({"variants": [{"name": "a"}, {"name": "a"}]}, "two variants of the same name"),
        ({"variants": [{"name": "a"}, {"name": "b", "weight": 0}]}, "greater than 0"),
        ({"variants": [{"name": "a"}, {"name": "b"}], "testers": {"me": "c"}}, "a tester is to meet 'c'"),
        ({"name": "a b", "variants": [{"name": "a"}, {"name": "b"}]}, "should match pattern"),
        ({"variants": [{"name": "a"}, {"name": "b", "bandits": {}}]}, "Extra inputs"),
    ],
)
def test_a_plan_that_says_nothing_sensible_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Plan.model_validate({"name": "plan", **fields})
