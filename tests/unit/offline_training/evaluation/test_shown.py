"""The order of slates that one of two models chose: by hand, and in worlds of which it is known which one is better."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from infra.benchmarks.small_release import build_release, items
from offline_training.evaluation.differences import CHAMPION, EVERYBODY, NEW_ITEMS, NEW_USERS, Difference
from offline_training.evaluation.shown import (
    CALIBRATION,
    SLATES,
    Evidence,
    Slate,
    compare_shown,
    explored_likes,
    outscored,
    position_exponent,
    slates_of,
)
from offline_training.experiment.impressions import RewardedDecision
from online_serving.snapshot import Snapshot
from streaming.bandit.exploration import choose_slate


def test_the_order_by_hand() -> None:
    even = np.ones(3)
    assert outscored(np.array([3.0, 2.0, 1.0]), even).tolist() == [1, 1 / 2, 0]
    assert outscored(np.array([3.0, 2.0, 2.0]), even).tolist() == [1, 1 / 4, 1 / 4], "a tie counts half"
    # The third counts three times: the second outscores it, and not the first.
    assert outscored(np.array([3.0, 2.0, 1.0]), np.array([1.0, 1.0, 3.0])).tolist() == [1, 3 / 4, 0]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_how_far_down_people_look_is_read_off_likes_by_place(gamma: float) -> None:
    place = np.tile(np.arange(1, 11), 4_000)
    liked = np.random.default_rng(0).random(len(place)) < 0.3 * place**-gamma
    assert position_exponent(place, liked) == pytest.approx(gamma, abs=0.05)


def test_nobody_liked_anything_and_all_places_are_alike() -> None:
    assert position_exponent(np.arange(1, 4), np.zeros(3, np.bool_)) == 0.0


def slate(user: str, **of: Any) -> Slate:
    """Of three items, shown surely, that the models agree on."""
    size = 3
    columns: dict[str, Any] = {
        "place": np.arange(1, size + 1), "liked": np.zeros(size, np.bool_), "reward": np.zeros(size),
        "probability": np.ones(size), "explored": np.zeros(size, np.bool_), "new": np.zeros(size, np.bool_),
        "release": np.array([0.3, 0.2, 0.1]), "champion": np.array([0.3, 0.2, 0.1]),
    }  # fmt: skip
    given = {name: value if isinstance(value, bool) else np.array(value) for name, value in of.items()}
    return Slate(user=user, **{"stranger": False, "resolved": True, **columns, **given})


def found(slates: Sequence[Slate]) -> tuple[dict[tuple[str, str], Difference], Evidence]:
    differences, evidence = compare_shown(slates)
    assert {one.against for one in differences} <= {CHAMPION}
    return {(one.metric, one.among): one for one in differences}, evidence


def test_likes_count_alike_and_slices_tell_users_and_items_apart() -> None:
    worse = [0.1, 0.2, 0.3]
    slates = [
        slate("ada", liked=[True, False, False], reward=[1, 0, 0], release=worse),
        slate("ada", liked=[True, False, False], reward=[1, 0, 0], release=worse),
        slate("bob", liked=[False, True, False], reward=[0, 1, 0], release=worse, stranger=True),
        slate("cyd", liked=[False, False, True], reward=[0, 0, 1], new=[False, False, True], resolved=False),
        slate("dan"),
    ]
    by, evidence = found(slates)
    everybody = by[SLATES, EVERYBODY]
    assert everybody.users == 3
    assert everybody.release == pytest.approx((0 + 0 + 1 / 2 + 0) / 4)
    assert everybody.other == pytest.approx((1 + 1 + 1 / 2 + 0) / 4)
    assert (by[SLATES, NEW_USERS].users, by[SLATES, NEW_USERS].mean) == (1, 0)
    assert (by[SLATES, NEW_ITEMS].users, by[SLATES, NEW_ITEMS].release) == (1, 0)
    assert by[CALIBRATION, EVERYBODY].users == 3, "cyd's slate is open"
    assert (evidence.slates, evidence.impressions, evidence.likes, evidence.effective_likes) == (5, 15, 4, 4)
    assert not evidence.tells


def test_rare_slots_weigh_more_and_no_more_than_three_times() -> None:
    rare = slate("ada", liked=[True, True, False], reward=[1, 1, 0], probability=[1, 0.01, 1])
    by, evidence = found([rare])
    # The first outscores both others (1), the second the third alone, which weighs 1 of 2: (1 * 1 + 3 * 1/2) / 4.
    assert by[SLATES, EVERYBODY].release == pytest.approx((1 + 3 / 2) / 4)
    assert evidence.effective_likes == pytest.approx(4**2 / 10)


def test_the_better_calibrated_one_is_told() -> None:
    rng = np.random.default_rng(0)
    slates = []
    for user in range(100):
        truth = rng.uniform(0.1, 0.5, 3)
        reward = (rng.random(3) < truth).astype(np.float64)
        slates.append(slate(f"u{user}", reward=reward, release=truth, champion=truth + 0.3))
    calibration = found(slates)[0][CALIBRATION, EVERYBODY]
    assert calibration.low is not None
    assert calibration.low > 0


class World:
    """Users who like an item with the chance that they have for it, if they look that far down. The champion knows it
    with noise, chooses slates by what it knows, and explores a tenth of the slots."""

    def __init__(self, gamma: float, seed: int) -> None:
        self.rng, self.gamma = np.random.default_rng(seed), gamma

    def slates(self, users: int, noise: float, champions: float = 1.0) -> list[Slate]:
        """noise: of what the release knows."""
        found = []
        for user in range(users):
            logit = self.rng.normal(-1.5, 1.0, 60)
            known, other = (logit + self.rng.normal(0, by, 60) for by in (champions, noise))
            chosen = choose_slate(known, np.full(60, 0.01), 10, 20, 0.1, self.rng)
            shown, place = chosen.shown, np.arange(1, 11)
            looked = self.rng.random(10) < place**-self.gamma
            liked = looked & (self.rng.random(10) < 1 / (1 + np.exp(-logit[shown])))
            left = np.where(np.isin(np.arange(60), shown), -np.inf, known).max()
            best = [max(left, known[shown[k:]].max()) for k in range(10)]
            found.append(
                slate(
                    f"u{user}", place=place, liked=liked, reward=liked, probability=chosen.probabilities,
                    explored=known[shown] < best, new=np.zeros(10, np.bool_),
                    release=other[shown], champion=known[shown],
                )
            )  # fmt: skip
        return found


@pytest.mark.parametrize("gamma", [0.0, 0.7])
def test_a_release_that_is_as_good_is_not_held_back_for_not_having_chosen(gamma: float) -> None:
    """In none of six worlds, although one in 40 is lost by chance where nobody is ahead."""
    for seed in range(6):
        by, _ = found(World(gamma, seed).slates(300, noise=1.0))
        high = by[SLATES, EVERYBODY].high
        assert high is not None
        assert high > 0


@pytest.mark.parametrize("gamma", [0.0, 0.7])
def test_a_release_that_knows_nothing_is_found_out(gamma: float) -> None:
    by, _ = found(World(gamma, 0).slates(1_000, noise=50.0))
    high = by[SLATES, EVERYBODY].high
    assert high is not None
    assert high < 0


def test_slates_are_those_of_the_champion_with_what_it_predicted(tmp_path_factory: pytest.TempPathFactory) -> None:
    releases = tmp_path_factory.mktemp("releases")
    release = Snapshot.load(releases, build_release(releases, catalogue=items(40), history_length=8))
    champion = Snapshot.load(releases, build_release(releases, catalogue=items(30), history_length=8))
    (shown_to_ada, another) = (
        RewardedDecision(
            id="d", user="ada", time=10, surface="s", variant="v", release=of, shown=["i1", "gone", "i35", "i2"],
            predicted=np.array([0.4, 0.3, 0.2, 0.1, 0.05]), mean=np.array([0.4, 0.1, 0.3, 0.2, 0.2]),
            bonus=np.zeros(5), probabilities=np.array([0.9, 0.1, 0.9, 0.9]), rewards=np.array([0.0, 1.0, 1.0, 0.0]),
            seen=np.array([True, True, True, False]),
        )
        for of in (champion.release, "another")
    )  # fmt: skip
    [made] = slates_of([shown_to_ada, another], release, champion, 0.5, 11)
    assert made.place.tolist() == [1, 3], "one item the release does not know, one was not seen"
    assert made.champion.tolist() == [0.4, 0.2]
    assert made.liked.tolist() == [False, True]
    assert made.new.tolist() == [False, True]
    assert made.stranger
    assert made.resolved
    assert ((made.release > 0) & (made.release < 1)).all()
    assert explored_likes([shown_to_ada], 0.5) == {"ada": {"gone"}}, "at its place there were better ones left"
