"""Replay on an installation that has served for a while: what was known comes out again, and values are right."""

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from feature_store.arrays import Float64
from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.events import Decision
from feature_store.shown import Shown, digests
from offline_training.progress import silent
from offline_training.replay.candidate import Candidate, as_served
from offline_training.replay.moments import EARLIER, GONE, RULED, TWICE, Moment
from offline_training.replay.replay import Replay, Stretch, replay, weigh
from online_serving.pipeline.pipeline import Weighed
from online_serving.pipeline.request import Filter
from streaming.bandit.exploration import choose_slate
from streaming.settings import BanditMode
from tests.unit.offline_training.replay.conftest import BANDIT, MADE, SERVING, VISIT_MS, Installation

EVERYTHING = Stretch()


def other(mode: BanditMode = BanditMode.EXPLORE, **changes: Any) -> Candidate:
    """As it was served, with another mode or other settings."""
    return as_served("other", BANDIT.model_copy(update={"mode": mode, **changes}), SERVING)


def run(at: Installation, candidate: Candidate, stretch: Stretch = EVERYTHING, **options: Any) -> Replay:
    return replay(at.home, at.settings, candidate, stretch, silent, **options)


def test_the_policy_that_made_the_log_comes_out_as_logged(served: Installation) -> None:
    found = run(served, as_served("as served", BANDIT, SERVING))
    assert found.reproduced.equal == 1.0
    assert found.left_out == {}
    assert found.evaluation.decisions == 400
    for estimate in found.evaluation.estimates:
        assert estimate.value.value == pytest.approx(found.logged.value, abs=0.02), estimate.estimator
    assert found.evaluation.estimates[0].value.value == pytest.approx(found.logged.value)
    assert found.refusal is None
    assert found.difference is not None
    assert found.difference.value == pytest.approx(0, abs=1e-3)


def test_other_settings_are_valued_as_if_they_had_served(served: Installation) -> None:
    """Half as much exploration: its own slates, drawn at the log's own moments, like as the users would."""
    rng = np.random.default_rng(0)
    earned: list[float] = []

    def watch(moment: Moment, weighed: Weighed) -> None:
        for _ in range(20):
            slate = choose_slate(weighed.view.mean, weighed.view.bonus, 2, *weighed.exploration, rng)
            names = moment.snapshot.graph.ids(weighed.candidates[slate.shown].tolist())
            earned.extend(0.5 * (int(name.strip("inew") or 0) % 2 == 0) for name in names)

    found = run(served, other(explore_share=0.2), watch=watch)
    value = found.evaluation.read_first().value
    assert found.refusal is None
    assert value.low is not None
    assert value.high is not None
    assert value.low <= np.mean(earned) <= value.high
    assert found.evaluation.propensity_alarm is None
    assert found.reproduced.equal == 1.0  # whatever is tried


def test_what_was_never_shown_is_refused(served: Installation) -> None:
    """Without the clusters' candidates and the nearest ones: there is nothing left that was ever shown."""
    hidden = tuple(dict.fromkeys(item for decision in served.decisions for item in decision.items))[:25]
    rules = as_served("as served", BANDIT, SERVING)
    found = run(served, rules._replace(exclude=Filter(items=hidden)))
    assert found.refusal is not None
    assert "was never shown" in found.refusal or "hardly overlaps" in found.refusal
    assert found.difference is None


def test_baselines(served: Installation) -> None:
    frozen = run(served, other(BanditMode.OFF))
    assert frozen.evaluation.estimates[0].value.value >= 0
    popular = other(BanditMode.OFF)._replace(by_popularity=True)
    seen: list[Float64] = []
    run(served, popular, watch=lambda moment, weighed: seen.append(weighed.view.mean))
    assert seen[0].tolist() == [0.0] * len(seen[0])  # nobody has liked anything yet
    assert seen[-1].max() == 1.0


def test_a_new_item_is_known_from_its_moment_on(served: Installation) -> None:
    sizes: list[int] = []
    run(served, other(), watch=lambda moment, weighed: sizes.append(moment.snapshot.size))
    assert sizes == [40] * 200 + [41] * 200


def test_users_are_not_shown_what_they_were_shown_before(served: Installation) -> None:
    before: dict[str, set[str]] = {}

    def watch(moment: Moment, weighed: Weighed) -> None:
        known = before.setdefault(moment.decision.user, {"i1"})
        assert isinstance(moment.user.shown, Shown)
        assert set(moment.user.shown.digests()) == set(digests(known))
        known.update(moment.outcome.shown)

    run(served, other(), watch=watch)


def test_a_stretch_of_time_and_thinning(served: Installation) -> None:
    found = run(served, other(), Stretch(since=MADE + 100 * VISIT_MS, until=MADE + 300 * VISIT_MS), most=50)
    assert found.evaluation.decisions == 50
    assert found.thinned_from == 200
    assert found.first == MADE + 100 * VISIT_MS
    # What stands before the stretch is folded all the same; when exactly a prior was fitted anew is not in the log.
    assert found.reproduced.equal > 0.95
    with pytest.raises(InvalidInput, match=r"no decision of variant 'nobody'\. It has 400 in all"):
        run(served, other(), Stretch(variant="nobody"))


def test_a_release_is_not_tried_on_what_came_before_it(served: Installation) -> None:
    own = as_served("as served", BANDIT, SERVING)._replace(release=served.release)
    assert run(served, own).left_out == {}
    with pytest.raises(InvalidInput, match="has no namespace"):
        run(served, own._replace(release="0123456789abcdef"))


def test_decisions_from_before_the_release_are_left_out(tampered: Installation) -> None:
    early = [
        [
            msgspec.structs.replace(event, time=MADE - 10) if isinstance(event, Decision) and number < 20 else event
            for event in record
        ]
        for number, record in enumerate(tampered.records)
    ]
    tampered.rewrite(early)
    own = as_served("as served", BANDIT, SERVING)._replace(release=tampered.release)
    assert run(tampered, own).left_out == {EARLIER: 20}


def test_a_log_whose_release_is_gone_cannot_be_replayed(tampered: Installation) -> None:
    change(tampered, lambda decision: msgspec.structs.replace(decision, namespace="gone-1"))
    with pytest.raises(InvalidInput, match=f"No decision can be replayed .60: {GONE}"):
        run(tampered, other())


@pytest.mark.parametrize(
    ("probability", "complaint"),
    [(0.0, r"must lie in \(0, 1\]"), (1.5, r"must lie in \(0, 1\]"), (math.nan, "logged probability .* is nan")],
)
def test_impossible_probabilities_are_refused(tampered: Installation, probability: float, complaint: str) -> None:
    def spoil(decision: Decision) -> Decision:
        return msgspec.structs.replace(decision, probabilities=[probability, *decision.probabilities[1:]])

    change(tampered, spoil)
    with pytest.raises(InvalidInput, match=complaint):
        run(tampered, other())


def test_probabilities_that_are_not_those_of_the_log_raise_an_alarm(
    served: Installation, tmp_path_factory: Any
) -> None:
    at = Installation(tmp_path_factory.mktemp("wrong"), visits=400)
    change(at, lambda d: msgspec.structs.replace(d, probabilities=[p / 2 for p in d.probabilities]))
    found = run(at, as_served("as served", BANDIT, SERVING))
    assert found.refusal is not None
    assert "the logged probabilities are not those that the log was made with" in found.refusal
    assert found.reproduced.equal < 0.01


def test_a_decision_that_was_logged_twice_counts_once(tampered: Installation) -> None:
    tampered.rewrite([*tampered.records, tampered.records[0]])
    found = run(tampered, other())
    assert found.evaluation.decisions == 60
    assert found.left_out == {TWICE: 1}


def test_decisions_with_rules_within_their_slates_are_left_out(tampered: Installation) -> None:
    ids = sorted(event.id for record in tampered.records for event in record if isinstance(event, Decision))
    ruled = set(ids[:7])
    change(tampered, lambda d: msgspec.structs.replace(d, greedy=[1.0], greedy_mean=[0.5]) if d.id in ruled else d)
    assert run(tampered, other()).left_out == {RULED: 7}


def test_weighing_follows_what_the_pipeline_draws(served: Installation) -> None:
    """The law of the slates: of what is weighed, every logged item has the chance that was logged."""
    checked = 0

    def watch(moment: Moment, weighed: Weighed) -> None:
        nonlocal checked
        again = weigh(as_served("as served", BANDIT, SERVING), moment)
        assert again.candidates.tolist() == weighed.candidates.tolist()
        checked += 1

    run(served, as_served("as served", BANDIT, SERVING), Stretch(until=MADE + 20 * VISIT_MS), watch=watch)
    assert checked == 20


def change(at: Installation, spoil: Any) -> None:
    """Rewrites every decision of the log."""
    at.rewrite([[spoil(event) if isinstance(event, Decision) else event for event in record] for record in at.records])
