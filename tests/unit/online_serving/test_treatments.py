"""From experiments to settings of requests."""

from contextlib import nullcontext
from typing import Any

import pytest

from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.experiments import Experiment, Status, Variant, claim
from online_serving.settings import ServingSettings
from online_serving.treatments import Treatments, bandit_of
from streaming.settings import BanditMode, BanditSettings

SERVING, BANDIT = ServingSettings(), BanditSettings()


def running(name: str, *changes: dict[str, Any], share: float = 1.0, **fields: Any) -> Experiment:
    variants = tuple(Variant(name=f"v{k}", **change) for k, change in enumerate(({}, *changes)))
    made = Experiment(name=name, variants=variants, status=Status.RUNNING, **fields)
    return claim(made, share, ())


def treatments(*experiments: Experiment) -> Treatments:
    return Treatments(experiments, SERVING, BANDIT, nullcontext)


def test_without_experiments_everybody_gets_the_settings() -> None:
    found = treatments().of("anybody")
    assert (found.label, found.slate_size, found.learns, found.release) == ("default", 10, True, None)


def test_variants_of_two_layers_meet_and_each_changes_its_own() -> None:
    table = treatments(
        running("size", {"serving": {"slate_size": 5, "repeat_days": 0}}, layer="one"),
        running("mode", {"bandit": {"mode": "off"}}, {"release": "r"}, layer="two"),
    )
    met = {found.label: found for found in (table.of(f"user {n}") for n in range(300))}
    assert len(met) == 6
    assert table.releases == {"r"}
    for label, found in met.items():
        assert found.slate_size == (5 if "size=v1" in label else 10)
        assert found.remembers_shown is ("size=v1" not in label)
        assert found.learns is ("mode=v1" not in label)
        assert found.release == ("r" if "mode=v2" in label else None)


def test_the_same_pipeline_answers_all_users_of_a_variant() -> None:
    table = treatments(running("mode", {"bandit": {"mode": "off"}}))
    assert len({id(table.of(f"user {n}").pipeline) for n in range(100)}) == 2


def test_a_tester_in_no_bucket_is_treated() -> None:
    table = treatments(running("mode", {"bandit": {"mode": "off"}}, share=0.0, testers={"me": "v1"}))
    assert (table.of("me").label, table.of("me").learns) == ("mode=v1!", False)
    assert table.of("you").label == "default"


def test_modes_of_variants() -> None:
    assert bandit_of(Variant(name="a", bandit={"mode": "greedy"}), BANDIT).mode is BanditMode.GREEDY
    assert bandit_of(Variant(name="a"), BANDIT) is BANDIT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"serving": {"port": 80}}, "sets serving.port, which no request reads. A variant may set: candidates"),
        ({"bandit": {"memory_days": 3}}, "sets bandit.memory_days, which no request reads"),
        ({"bandit": {"alhpa": 3}}, "sets bandit.alhpa"),
        ({"bandit": {"alpha": -1}}, r"'v1': bandit.alpha is -1: .*greater than or equal to 0"),
        ({"serving": {"category_boosts": {"drama": 0}}}, "serving.category_boosts.drama is 0"),
        ({"serving": {"slate_size": 200}}, "serving.slate_size 200 is more than serving.max_slate_size 100"),
        ({"serving": {"ranker": False}}, 'bandit.mode is explore.*Set bandit.mode = "off" as well'),
    ],
)
def test_what_a_request_cannot_read_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        treatments(running("wrong", change))


def test_one_setting_on_two_layers_is_refused() -> None:
    change = {"bandit": {"alpha": 2.0}}
    with pytest.raises(InvalidInput, match=r"'one' and 'two' both change bandit\.alpha, on layers 'a' and 'b'"):
        treatments(running("one", change, layer="a"), running("two", change, layer="b"))


def test_too_many_ways_to_meet_are_refused() -> None:
    changes: tuple[dict[str, Any], ...] = (
        {"bandit": {"alpha": 2.0}},
        {"serving": {"candidates": 9}},
        {"bandit": {"edge_prior": 2.0}},
    )
    layers = [running(f"e{k}", change, layer=f"l{k}") for k, change in enumerate(changes)]
    wide = [running(f"w{k}", *[{} for _ in range(7)], layer=f"w{k}") for k in range(2)]
    with pytest.raises(InvalidInput, match=r"5 layers can meet in 2187 ways, which is more than 1000"):
        treatments(*layers, *wide)
