"""What is set aside is tried again, less and less often, and comes back when it works."""

from prometheus_client import CollectorRegistry, Gauge

from feature_store.contracts.errors import Unavailable
from streaming.health import Health, Part

A, B = Part("ns", 0), Part("ns", 1)


class Watch:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _health(watch: Watch) -> tuple[Health, CollectorRegistry]:
    registry = CollectorRegistry()
    quarantined = Gauge("quarantined", "", ["of", "partition"], registry=registry)
    return Health(quarantined, Gauge("stepped", "", registry=registry), watch), registry


def _value(registry: CollectorRegistry, part: Part) -> float | None:
    return registry.get_sample_value("quarantined", {"of": part.of, "partition": str(part.partition)})


def test_only_what_failed_waits_and_each_time_twice_as_long() -> None:
    watch = Watch()
    health, registry = _health(watch)
    health.worked(B, progressed=True)
    waits = []
    for _ in range(8):
        health.failed(A, Unavailable("It is gone."))
        began = watch.now
        while not health.may_work(A):
            assert health.may_work(B)
            watch.now += 0.5
        waits.append(watch.now - began)
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]
    assert [_value(registry, part) for part in (A, B)] == [1, 0]
    assert [tuple(part) for part in health.quarantined()] == [("ns", 0, "It is gone.")]


def test_another_try_that_writes_something_or_lasts_ends_the_quarantine() -> None:
    watch = Watch()
    health, registry = _health(watch)
    for progressed, lasts in ((True, 0.0), (False, 2.0)):
        health.failed(A, ValueError("3"))
        assert health.due() == []
        watch.now += 1
        assert health.due() == [A]
        assert health.may_work(A)
        assert health.due() == []
        health.worked(A, progressed=False)  # nothing has come of it yet: the log may still refuse
        assert [part.reason for part in health.quarantined()] == ["unexpected ValueError: 3"]
        watch.now += lasts
        health.worked(A, progressed)
        assert health.quarantined() == []
        assert _value(registry, A) == 0


def test_what_is_not_this_process_s_work_any_more_is_forgotten() -> None:
    health, registry = _health(Watch())
    health.failed(A, Unavailable("gone"))
    health.forget(A)
    assert health.parts() == []
    assert _value(registry, A) is None


def test_a_process_that_makes_no_step_is_not_trusted() -> None:
    watch = Watch()
    health, _ = _health(watch)
    watch.now = 119
    assert health.problem() is None
    watch.now = 121
    assert health.problem() == "it has not got through its work for 121 s"
    health.step()
    health.failed(A, Unavailable("gone"))
    assert health.problem() is None
