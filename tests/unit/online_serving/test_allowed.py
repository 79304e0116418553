"""Masks that are lent: what a request leaves out is gone for it, and there again afterwards."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from feature_store.arrays import Bool
from online_serving.allowed import Allowed, Masks

POSITIONS = st.lists(st.integers(0, 20), max_size=8)


def packed(mask: Bool) -> list[int]:
    """As Allowed has it, looking at all of it."""
    return np.packbits(mask, bitorder="little").tolist()


@given(
    available=st.lists(st.booleans(), min_size=21, max_size=21), rules=st.lists(POSITIONS, max_size=3), only=POSITIONS
)
def test_a_lent_mask_is_what_copies_of_all_of_it_would_be(
    available: list[bool], rules: list[list[int]], only: list[int]
) -> None:
    masks, plain = Masks(np.array(available)), np.array(available)
    with masks.lent() as left:
        for rule in rules:
            before = plain.sum()
            plain[rule] = False
            assert left.leave_out(np.array(rule, np.int64)) == before - plain.sum()
        assert left.allowed.mask.tolist() == plain.tolist()
        assert left.allowed.packed.tolist() == packed(plain)
        assert left.allowed.left == plain.sum()
        named = left.among(np.array(only, np.int64))
        assert named.tolist() == [j for j in sorted(set(only)) if plain[j]]
        with masks.only(named) as allowed:
            assert np.flatnonzero(allowed.mask).tolist() == named.tolist()
            assert allowed.packed.tolist() == packed(allowed.mask)
            assert (allowed.left, allowed.few is named) == (len(named), True)
    with masks.lent() as again, masks.only(np.array([3])) as one:  # the same memory
        assert again.allowed.mask.tolist() == available
        assert again.allowed.packed.tolist() == packed(np.array(available))
        assert np.flatnonzero(one.mask).tolist() == [3]


def test_two_requests_at_once_do_not_see_each_other() -> None:
    masks = Masks(np.ones(9, np.bool_))
    with masks.lent() as one, masks.lent() as other:
        one.leave_out(np.array([1]))
        assert other.allowed.mask.all()
        assert other.leave_out(np.array([1, 8])) == 2
    assert masks.available.all()


def test_of_a_mask_all_is_looked_at() -> None:
    mask = np.array([True, False, True])
    allowed = Allowed.of(mask)
    assert (allowed.packed.tolist(), allowed.left, allowed.few) == ([5], 2, None)
