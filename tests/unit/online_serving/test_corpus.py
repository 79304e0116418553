"""Users of a variant of a parted catalogue are shown its items, and nobody else is."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from feature_store.contracts.catalogue import Item
from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.experiments import Experiment, variant_in
from feature_store.user_features import NOBODY
from infra.benchmarks.small_release import build_release, items
from online_serving.parameters import Parameters
from online_serving.pipeline.request import Request
from online_serving.settings import ServingSettings
from online_serving.snapshot import Snapshot
from online_serving.treatments import Treatments
from streaming.settings import BanditSettings
from tests.experiment_log import running

CATALOGUE = items(60)
NAMES = ("control", "treatment")


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    home: Path = tmp_path_factory.mktemp("releases")
    return Snapshot.load(home, build_release(home, catalogue=CATALOGUE), CATALOGUE)


def treatments(*experiments: Experiment) -> Treatments:
    return Treatments(experiments, ServingSettings(), BanditSettings(), nullcontext)


def shown(snapshot: Snapshot, table: Treatments, user: str, size: int = 60) -> tuple[str, set[str]]:
    """The user's label, and everything that they may be shown."""
    found = table.of(user)
    parameters = Parameters(snapshot.graph, [], [0]).table(0)
    answer = found.pipeline.recommend(snapshot, parameters, Request(size), NOBODY, np.random.default_rng(0))
    return found.label, set(answer.candidates.ids())


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_every_item_is_shown_to_the_users_of_one_part(snapshot: Snapshot, share: float) -> None:
    parted = running("parted", unit="item", share=share)
    table = treatments(parted)
    seen: dict[str | None, set[str]] = {}
    for n in range(40):
        label, candidates = shown(snapshot, table, f"u{n}")
        assert seen.setdefault(variant_in(label, "parted"), candidates) == candidates
    everything = set(snapshot.graph.ids(range(snapshot.size)))
    assert set(seen) == ({*NAMES} if share == 1 else {*NAMES, None})
    assert set.union(*seen.values()) == everything
    assert sum(map(len, seen.values())) == len(everything)
    for name, candidates in seen.items():
        number = -1 if name is None else NAMES.index(name)
        assert {parted.corpus(item) for item in candidates} == {number}


def test_items_that_come_later_belong_to_a_part_too(snapshot: Snapshot) -> None:
    parted = running("parted", unit="item")
    table, later = treatments(parted), [Item(id=f"later {n}", title="New", categories=["noir"]) for n in range(10)]
    _, before = shown(snapshot, table, "u0")
    _, after = shown(snapshot.with_items((item.id, item) for item in later), table, "u0", size=70)
    number = NAMES.index(parted.variant_of("u0").name)
    assert after - before == {item.id for item in later if parted.corpus(item.id) == number}
    assert after > before


def test_a_tester_of_another_experiment_sees_everything_once_all_items_are_dealt(snapshot: Snapshot) -> None:
    parted = running("parted", unit="item")
    other = running("other", share=0.0, testers={"me": "treatment"})
    label, candidates = shown(snapshot, treatments(parted, other), "me")
    assert label == "other=treatment!"
    assert len(candidates) == snapshot.size


def test_the_catalogue_is_parted_once() -> None:
    with pytest.raises(InvalidInput, match="first and second both part the catalogue"):
        treatments(running("first", unit="item"), running("second", unit="item", layer="other"))
