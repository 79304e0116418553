"""W3C Trace Context: which trace a request belongs to."""

import asyncio
import re

import pytest

from feature_store.contracts.tracing import continued, current_id, within

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("header", "sampled"),
    [
        (f"00-{TRACE}-{PARENT}-01", True),
        (f"00-{TRACE}-{PARENT}-00", False),
        (f"00-{TRACE}-{PARENT}-fe", False),  # flags that this version does not know
        (f" 00-{TRACE}-{PARENT}-03\t", True),
        (f"01-{TRACE}-{PARENT}-01", True),  # a later version begins as this one does ...
        (f"cc-{TRACE}-{PARENT}-01-what-comes-then", True),  # ... and may go on
    ],
)
def test_the_trace_of_the_caller_goes_on_with_a_span_of_its_own(header: str, sampled: bool) -> None:
    trace = continued([header.encode()])
    assert (trace.id, trace.sampled) == (TRACE, sampled)
    assert trace.span != PARENT
    assert trace.header() == f"00-{TRACE}-{trace.span}-{'01' if sampled else '00'}"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [""],
        ["junk"],
        [f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-01"],
        [f"00-{TRACE.upper()}-{PARENT}-01"],
        [f"ff-{TRACE}-{PARENT}-01"],
        [f"00-{'0' * 32}-{PARENT}-01"],
        [f"00-{TRACE}-{'0' * 16}-01"],
        [f"00-{TRACE}-{PARENT}-01-more"],
        [f"01-{TRACE}-{PARENT}-01.more"],
        [f"00-{TRACE}-{PARENT}-1"],
        [f"00-{TRACE[1:]}-{PARENT}-01"],
        [f"00-{TRACE}-{PARENT}-01\n"],
    ],
)
def test_without_a_valid_header_a_trace_begins(headers: list[str]) -> None:
    first, second = (continued([header.encode() for header in headers]) for _ in range(2))
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", first.header())
    assert TRACE not in (first.id, second.id)
    assert first.id != second.id


def test_what_is_done_within_a_trace_knows_it_also_in_tasks_that_outlive_it() -> None:
    async def told() -> str | None:
        await asyncio.sleep(0)
        return current_id()

    async def requests() -> list[str | None]:
        tasks = []
        for digit in "ab":
            with within(continued([f"00-{digit * 32}-{PARENT}-00".encode()])):
                tasks.append(asyncio.create_task(told()))
        return [await told(), *[await task for task in tasks]]

    assert asyncio.run(requests()) == [None, "a" * 32, "b" * 32]
