"""Parts fail one after the other, and every answer is a slate. Times are goals of `matchloop bench faults`."""

from infra.benchmarks.faults.bench import rows, run
from infra.benchmarks.faults.cases import CASES
from offline_training.progress import silent


def test_whatever_fails_everybody_gets_a_slate_and_nothing_that_was_promised_is_lost() -> None:
    results, goals = run(1, silent, seconds=1.0, overload_seconds=3.0)
    assert list(results["cases"]) == [case.name for case in CASES]
    timed = {"slowest p99", "longest recovery", "overload: p99 to the usual", "overload: p99 of refusals"}
    timed.add("unlogged beside a silent partition")
    assert [goal for goal in goals if not goal.met and goal.name not in timed] == []
    assert all(one["recovery_seconds"] is not None for one in results["cases"].values()), rows(results)
    assert results["accepted_events"] > 0
    logged = results["cases"]["partition without a leader"]["logged_by_partition"]
    assert logged[0] < 0.5 < logged[1], rows(results)
    assert results["cases"]["Redis down"]["paths"].keys() & {"cached_user", "popular_in_segment"}
