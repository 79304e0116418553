"""The loop of a small world, replayed: what was known comes out again, and estimates are of what policies then earn."""

import pytest

from benchmarks.ope.measured import mean_interval
from benchmarks.ope.own_loop import CONTENDERS, EXPLORING, estimates
from benchmarks.pay.loop import run
from benchmarks.pay.release import Prepared
from tests.unit.benchmarks.pay.conftest import prepared, world

__all__ = ["prepared", "world"]  # fixtures


def test_the_arm_that_made_the_log_is_valued_as_it_was(prepared: Prepared) -> None:
    [found] = estimates(prepared, 3, CONTENDERS[:1])
    assert found["reproduced"] > 0.95
    assert found["estimate"].value == pytest.approx(found["logged"].value, abs=0.05)
    assert found["in_its_states"] == pytest.approx(found["logged"].value, abs=0.15)
    assert found["refused"] is not None, "48 visits are too few"


def test_a_run_is_measured_over_visitors(prepared: Prepared) -> None:
    played = run(prepared, EXPLORING, 3)
    found = mean_interval(played.liked, played.shown >= 0, played.visitor)
    assert found.value == pytest.approx(played.liked[played.shown >= 0].mean())
    assert found.low is not None
    assert found.low < found.value


def test_a_record_is_what_the_log_gets(prepared: Prepared) -> None:
    records: list[int] = []
    played = run(prepared, EXPLORING, 3, record=lambda events: records.append(len(events)))
    # A decision for each visit, a look at each place, and the likes.
    assert sum(records) == len(played.shown) + played.shown.size + played.liked.sum()
