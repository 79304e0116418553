"""Policies on a mail test whose truth is known."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.contracts.columns import FOREIGN_LOG
from feature_store.contracts.errors import InvalidInput
from offline_training.off_policy.foreign import ForeignLog, read_log, value_of, value_of_learner

NAMES = ["men", "women", "none"]
CHANCES, VALUES = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.4, 0.1])


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> ForeignLog:
    """6,000 mails; what a man is worth is moved by the context."""
    rng, n = np.random.default_rng(0), 6_000
    action = rng.choice(3, n, p=CHANCES)
    age = rng.normal(size=n)
    reward = (rng.random(n) < np.clip(VALUES[action] + 0.1 * age, 0, 1)).astype(np.float64)
    path = tmp_path_factory.mktemp("log") / "log.parquet"
    columns = [
        pa.nulls(n, pa.string()),
        pa.nulls(n, pa.int64()),
        pa.array(NAMES).take(pa.array(action)),
        pa.array(reward),
        pa.array(CHANCES[action]),
        pa.array(np.ones(n, np.int32)),
        pa.nulls(n, pa.int32()),
        pa.array(np.where(action == 1, 1.0, 0.0)),
        pa.array([[value] for value in age]),
        pa.array(["letter", "letter", "nothing"]).take(pa.array(action)),
    ]
    pq.write_table(pa.table(columns, schema=FOREIGN_LOG), path)
    return read_log(path)


@pytest.mark.parametrize(
    ("policy", "truth"), [("uniform", 0.24), ("always:women", 0.4), ("always:none", 0.1), ("target", 0.4)]
)
def test_values(log: ForeignLog, policy: str, truth: float) -> None:
    """Where a chance would be negative it is 0, which moves the values up a little."""
    found = value_of(log, policy, (0.0, 1.0))
    assert found.refusal is None
    for estimate in found.estimates:
        if estimate.estimator in ("RIPS", "doubly robust, self-normalised"):
            assert estimate.value.low is not None
            assert estimate.value.high is not None
            assert estimate.value.low - 0.01 <= truth <= estimate.value.high + 0.01, estimate.estimator
    assert found.bounds is not None
    assert "MIPS" in {one.estimator for one in found.estimates}


def test_a_model_of_the_context_narrows_the_interval(log: ForeignLog) -> None:
    found = {e.estimator: e.value for e in value_of(log, "always:women").estimates}

    def width(name: str) -> float:
        assert found[name].low is not None
        assert found[name].high is not None
        return float(found[name].high or 0) - float(found[name].low or 0)

    assert width("doubly robust") < width("RIPS")


@pytest.mark.parametrize(
    ("policy", "complaint"),
    [
        ("always:children", "The log never shows 'children': nothing is known of its value. It shows men, none, women"),
        ("best", "There is no policy 'best'"),
    ],
)
def test_policies_that_there_are_not(log: ForeignLog, policy: str, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        value_of(log, policy)
    with pytest.raises(InvalidInput, match="no chances of another policy"):
        value_of(log._replace(target=None), "target")


def test_rewards_outside_the_declared_range_are_refused(log: ForeignLog) -> None:
    with pytest.raises(InvalidInput, match=r"the range that was declared is 0\.0\.\.0\.5"):
        value_of(log, "uniform", (0.0, 0.5))


def test_a_log_read_back_numbers_its_actions(log: ForeignLog, tmp_path: Path) -> None:
    assert sorted(log.names) == sorted(NAMES)
    assert len(np.unique(log.users)) == 6_000  # nobody is named: every row is somebody else's
    assert log.choices.tolist() == [3.0] * 6_000
    assert log.context.shape == (6_000, 1)


def test_a_learner_goes_through_the_log(log: ForeignLog) -> None:
    found = value_of_learner(log, "learn:thompson")
    assert found.refusal is None
    assert found.value.value > value_of(log, "uniform").read_first().value.value
    with pytest.raises(InvalidInput, match=r"There is no learner 'best'\. There are: uniform, epsilon-greedy, ucb"):
        value_of_learner(log, "learn:best")
