"""From runs to figures, goals and a picture."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.regret import policies
from benchmarks.regret.bench import run
from benchmarks.regret.contenders import ALWAYS, BETA, Contender
from benchmarks.regret.figures import goals, interval, report
from benchmarks.regret.loop import visits
from benchmarks.regret.offline_model import RANKER, TOWERS, Ratings, item_features
from benchmarks.regret.plot import draw
from benchmarks.regret.scenarios import Scenario, scenarios
from benchmarks.regret.tournament import DISCOVERED, Played, Score, play_all
from benchmarks.regret.world import Environment
from feature_store.contracts.errors import InvalidInput
from offline_training.progress import silent


def test_an_interval_by_hand() -> None:
    """Mean 3, standard error sqrt(2.5 / 5), t(.975, 4) = 2.7764."""
    assert interval(np.array([1.0, 2, 3, 4, 5])) == pytest.approx([3 - 1.9632, 3 + 1.9632], abs=1e-4)


def test_every_scenario_is_there_with_all_delays() -> None:
    names = [scenario.name for scenario in scenarios()]
    assert len(set(names)) == len(names) == 21
    for scenario in scenarios():
        share = {"none": 0.0, "1%": 0.01, "10%": 0.1}[scenario.name.rpartition("/")[2]]
        assert scenario.delay == share * scenario.rounds
        tuned = [contender for contender in scenario.contenders if len(contender.grid) > 1]
        assert {len(contender.grid) for contender in tuned} == {6}  # the same effort for every peer
        assert "ours" not in {contender.name for contender in tuned}


def test_a_scaled_grid_is_in_units_of_the_rewards_spread() -> None:
    contender = Contender("a", policies.LINUCB, ((0.5, 0.1), (2.0, 1.0)), scaled=True)
    tried = [parameters.tolist() for parameters in contender.candidates(0.2)]
    assert tried == [
        [0.1, 0.1, 1.0, 1.0],
        [0.4, 1.0, 1.0, 1.0],
    ]


def test_scores_are_averaged_over_worlds(world: Environment) -> None:
    """Two campaigns in which everything is worth .25 and 1."""
    scenario = Scenario("upworthy/100/none", 100, 0, 0.5, (ALWAYS[0],))
    worlds = [world._replace(reward=np.full((5, 6), value, np.float32), noisy=False) for value in (0.25, 1.0)]
    score = play_all(ALWAYS[0], np.zeros(3), scenario, [(each, visits(each, 100, 0)) for each in worlds], 0)
    assert score.reward == pytest.approx(0.625)
    assert score.curve == pytest.approx([0.625] * 50)
    assert score.discovered[0] <= 6  # only the second campaign's rewards are positive
    assert score.discovered[DISCOVERED.index(30)] < score.discovered[0]


def played(reward: float, seeds: int = 3) -> Played:
    scores = [Score(100, reward + 0.01 * (k - 1), [reward] * 50, [k] * len(DISCOVERED)) for k in range(seeds)]
    return Played([1.0], [([1.0], reward)], scores)


def results(**rewards: float) -> dict[str, Any]:
    scenario = Scenario("", 100, 0, 0.5, (BETA,))
    return report(scenario, {name.replace("_", "-"): played(reward) for name, reward in rewards.items()})


def test_goals_by_hand() -> None:
    everybody = {"random": 0.2, "oracle": 1.0, "linucb": 0.6, "lints": 0.5, "thompson": 0.4, "ours": 0.5}
    found = {
        "jester/binary/static/none": results(vw_squarecb=0.45, vw_bag=0.4, **everybody),
        "jester/binary/static/10%": results(**everybody),
        "upworthy/5000/none": results(**everybody),
        "movielens/none": results(**everybody),
        "movielens/10%": results(**everybody | {"ours": 0.7}),
    }
    values: dict[str, Any] = {goal.name: (goal.value, goal.met) for goal in goals(found, {})}
    width = 2 * 0.01 / np.sqrt(3) * 4.3027  # both halves; t(.975, 2) = 4.3027
    assert values == {
        "jester_binary.lift_of_linucb": (pytest.approx(0.75), False),
        "jester_binary.over_vw": (pytest.approx(0.5 / 0.45), True),
        "jester_late.over_best_peer": (pytest.approx(0.5 / 0.6), False),
        "upworthy_5000.share_of_gain": (pytest.approx(0.375), False),
        "movielens.gap_to_thompson": (pytest.approx(0.1 - width, abs=1e-5), True),
        "movielens.gap_to_linucb": (pytest.approx(-0.1 - width, abs=1e-5), False),
    }
    cost = {"ours": {"decision_us": 1.9, "update_us": 1.0, "edge_update_us": 0.2}}
    assert [(goal.name, goal.met) for goal in goals({}, cost)] == [("cost.decision", True), ("cost.edge", False)]


def test_the_picture_is_written(tmp_path: Path) -> None:
    draw({"one": results(random=0.2, oracle=1.0, ours=0.5), "two": results(random=0.1, oracle=1.0)}, tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_wrong_options_are_named() -> None:
    with pytest.raises(InvalidInput, match="--data"):
        run(None, 0, silent, only=None, out=None)
    with pytest.raises(InvalidInput, match="No scenario of bench 'regret' contains 'chess'"):
        run(Path(), 0, silent, only="chess", out=None)


def test_item_features_count_the_chosen_ratings_only() -> None:
    ratings = Ratings(np.zeros(5, np.int64), np.array([0, 0, 1, 2, 0]), np.array([1.0, 0, 1, 1, 1]))
    chosen = np.array([TOWERS, TOWERS, TOWERS, 0, RANKER]) == TOWERS
    features = item_features(ratings, chosen, 3)
    overall = 2 / 3  # two likes of three ratings, worth ten more
    assert features[0] == pytest.approx([np.log(2), np.log(2), (1 + 10 * overall) / 12, 1])
    assert features[1] == pytest.approx([np.log(2), np.log(2), (1 + 10 * overall) / 11, 1])
    assert features[2].tolist() == [0, 0, 0.5, 0]
