"""What the chaos bench counts, and when it strikes."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from feature_store.sums import SERVED, N
from infra.benchmarks.audit import trials
from infra.benchmarks.chaos import KINDS, schedule
from tests.events import decision


def test_an_item_is_served_once_and_resolved_once_however_many_events_say_so() -> None:
    first, second = decision("u", 1, ["a", "b"]), decision("u", 2, ["b"])
    feedback = {
        (first.id, "e1"): ["a", "a"],  # sent twice
        (first.id, "e2"): ["a"],
        (second.id, "e1"): ["b"],
        (second.id, "e2"): ["a"],  # not in its slate
        ("forged", "e1"): ["a"],
    }
    counted = trials({d.id: d for d in (first, second)}, feedback)
    assert counted == {("a", SERVED): 1, ("b", SERVED): 2, ("a", N): 1, ("b", N): 1}
    assert (counted - Counter({("a", N): 2})).total() == 4  # a surplus of one item does not make up for others


@given(st.integers(0, 2**32), st.floats(1, 1000), st.integers(0, 40))
def test_every_kind_comes_as_often_as_the_others_and_the_seed_decides(seed: int, seconds: float, kills: int) -> None:
    found = schedule(seed, seconds, kills)
    assert found == schedule(seed, seconds, kills)
    assert len(found) == kills
    assert [at for at, _ in found] == sorted(at for at, _ in found)
    assert all(0 < at < seconds for at, _ in found)
    counts = [sum(kind == of for _, of in found) for kind in KINDS]
    assert max(counts) - min(counts) <= 1
