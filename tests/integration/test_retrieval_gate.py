"""The retrieval bench on MovieLens-100K as a gate: a change that makes the two towers worse, or a peer, is noticed."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from benchmarks.retrieval.contenders import contenders
from benchmarks.retrieval.measure import measure
from benchmarks.retrieval.ours import two_tower
from benchmarks.retrieval.protocols import TEST, read_protocol
from benchmarks.retrieval.report import Figures, report
from feature_store.contracts.errors import Unavailable
from offline_training.data.movielens import fetch
from offline_training.progress import silent
from offline_training.settings import TrainingSettings

MARGIN = 0.02  # what another machine's arithmetic may change


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's data in the layout of the bench's."""
    folder = tmp_path_factory.mktemp("data")
    try:
        found = fetch(folder, silent)
    except Unavailable as error:
        pytest.skip(str(error))
    target = folder / "ml-100k"
    target.mkdir()
    ratings = pq.read_table(found / "interactions.parquet")
    columns = {name: ratings[name].cast(pa.int64()) for name in ("user_id", "item_id", "timestamp")}
    pq.write_table(pa.table(columns | {"rating": ratings["value"].cast(pa.int64())}), target / "ratings.parquet")
    items = pq.read_table(found / "items.parquet")
    genres = pc.binary_join(items["categories"], "|")
    described = {"item_id": items["item_id"].cast(pa.int64()), "title": items["title"], "genres": genres}
    pq.write_table(pa.table(described | {"year": items["year"]}), target / "items.parquet")
    users = pq.read_table(found / "users.parquet")
    pq.write_table(users.set_column(0, "user_id", users["user_id"].cast(pa.int64())), target / "users.parquet")
    return folder


def test_peers_are_as_good_as_they_were(data: Path) -> None:
    """Figures that do not depend on chance."""
    protocol = read_protocol("ml-100k", data)
    figures: Figures = {}
    for peer in contenders("ml-100k", ["popularity", "recent_popularity", "ease"]):
        parameters = {"recent_popularity": {"days": 14.0}, "ease": {"ridge": 200.0}}.get(peer.name, {})
        figures |= measure(peer, parameters, protocol, [0], silent)
    found = report(protocol, figures)[TEST]
    assert found["users"] == {"all": 269, "known_users": 87, "new_users": 182}
    known = {name: parts["known_users"]["recall@50"]["mean"] for name, parts in found["models"].items()}
    assert known == pytest.approx({"popularity": 0.298, "recent_popularity": 0.398, "ease": 0.311}, abs=0.005)


def test_two_towers_are_as_good_as_they_were(data: Path) -> None:
    """A third of the default's training, which is worth most of it."""
    protocol = read_protocol("ml-100k", data)
    tests = {TEST: protocol.tests[TEST]}
    contender = two_tower(TrainingSettings(epochs=2), None, ranked=False)
    figures = measure(contender, {}, replace(protocol, tests=tests), [0], silent)
    models = report(replace(protocol, tests=tests), figures)[TEST]["models"]
    model, served = (models[name]["all"] for name in ("two_tower", "two_tower_release"))
    assert model["recall@50"]["mean"] >= 0.27 - MARGIN
    assert served["recall@50"]["mean"] == pytest.approx(model["recall@50"]["mean"], abs=0.002)
