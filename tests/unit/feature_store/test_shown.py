"""What users were shown, by digest."""

from hypothesis import given
from hypothesis import strategies as st

from feature_store.definitions import DAY_MS
from feature_store.shown import DigestIndex, Shown, digests, pack

ITEMS = st.lists(st.text(max_size=20), unique=True, max_size=30)


def _positions(index: DigestIndex, shown: Shown, size: int) -> set[int]:
    return set(index.positions(shown.digests(), size).tolist())


@given(items=ITEMS, added=ITEMS, shown=st.sets(st.text(max_size=20)))
def test_the_items_shown_are_found_again_among_those_of_the_release_and_later_ones(
    items: list[str], added: list[str], shown: set[str]
) -> None:
    later = [item for item in added if item not in items]
    index = DigestIndex(digests(items))
    index.append(later)
    packed = Shown(pack((item, 0) for item in [*shown, *items[:3], *later[:2]]))
    everything = [*items, *later]
    expected = {j for j, item in enumerate(everything) if item in shown or item in (*items[:3], *later[:2])}
    assert _positions(index, packed, len(everything)) == expected
    assert _positions(index, packed, len(items)) == {j for j in expected if j < len(items)}  # an older snapshot


def test_items_of_one_digest_are_all_found() -> None:
    index = DigestIndex(digests(["a", "b", "a", "c", "a"]))  # the same id stands for ids of one digest
    assert _positions(index, Shown(pack([("a", 0), ("x", 0)])), 5) == {0, 2, 4}


def test_an_entry_takes_seven_bytes_and_knows_its_day() -> None:
    packed = pack([("a", 3 * DAY_MS + 5), ("b", 70_000 * DAY_MS)])
    assert len(packed) == 14
    assert packed[5:7] == b"\x03\x00"
    assert packed[12:14] == b"\xff\xff"
    assert Shown(b"").digests().tolist() == []


def test_what_was_shown_on_a_day_or_later() -> None:
    times = [("a", 2 * DAY_MS), ("b", 3 * DAY_MS - 1), ("c", 3 * DAY_MS), ("d", 300 * DAY_MS)]
    assert Shown(pack(times)).since(3) == Shown(pack(times[2:]))
    assert Shown(pack(times)).since(257) == Shown(pack(times[3:]))
    assert Shown(b"").since(3) == Shown(b"")
