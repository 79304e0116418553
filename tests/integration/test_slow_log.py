"""The way into the log at the shipped settings, where acknowledgements take as long as a cluster's."""

from infra.benchmarks.ack_proxy import Acknowledgements
from infra.benchmarks.slow_log import measure


def test_a_log_that_takes_15_ms_is_in_time_and_never_stalled() -> None:
    """The exact shares are goals of `matchloop bench slow-log`: here the machine may be busy."""
    found = measure(Acknowledgements(15.0, 15.0), seed=1, seconds=5.0, rate=40.0)
    assert found["not_sent"] <= 0.05 * found["decisions"]
    assert found["logged_share"] >= 0.8


def test_delays_are_those_that_were_asked_for() -> None:
    draw = Acknowledgements(6.0, 40.0).delay(seed=1)
    delays = sorted(draw() * 1000 for _ in range(10_000))
    assert 5.5 < delays[5_000] < 6.5
    assert 35 < delays[9_900] < 45
    constant = Acknowledgements(15.0, 15.0).delay(seed=1)
    assert {constant() for _ in range(10)} == {0.015}
