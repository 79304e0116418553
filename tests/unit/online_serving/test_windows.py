"""Windows of items: as a look at all of them at every moment would have it."""

from hypothesis import given
from hypothesis import strategies as st

from feature_store.contracts.catalogue import Item
from online_serving.windows import Windows

TIME = st.one_of(st.none(), st.integers(0, 9))
ITEM = st.one_of(st.none(), st.builds(Item, id=st.just("i"), available_from=TIME, available_until=TIME))


@given(st.lists(st.dictionaries(st.integers(0, 6), ITEM), max_size=4), st.integers(0, 10))
def test_closed_is_what_each_item_says_until_something_comes_or_goes(
    changes: list[dict[int, Item | None]], time: int
) -> None:
    windows, items = Windows.none(), dict[int, Item | None]()
    for change in changes:
        windows = windows.with_items(change.items())
        items |= change

    def closed(time: int) -> list[int]:
        return sorted(at for at, item in items.items() if item is not None and not item.in_window(time))

    assert windows.closed(time).tolist() == closed(time)
    begin, end = windows.unchanged(time)
    assert begin <= time < end
    assert all(closed(other) == closed(time) for other in range(begin, min(end, 11)))


def test_items_without_a_window_cost_nothing() -> None:
    windows = Windows.none()
    assert windows.with_items([(3, Item(id="i")), (4, None)]) is windows
