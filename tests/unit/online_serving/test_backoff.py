"""Back-off: longer with each failure, never longer than the limit, and not the same for everybody."""

from online_serving.backoff import Backoff


def test_waits_grow_to_the_limit_and_begin_anew() -> None:
    backoff = Backoff(1.0, 60.0)
    for limit in [1, 2, 4, 8, 16, 32, 60, 60, 60]:
        assert limit / 4 <= backoff.wait() <= limit
    backoff.reset()
    assert backoff.wait() <= 1


def test_processes_that_fail_together_try_again_apart() -> None:
    assert len({Backoff(1.0, 60.0).wait() for _ in range(50)}) > 40
