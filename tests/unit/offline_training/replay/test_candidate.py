from pathlib import Path

import pytest

from feature_store.contracts.errors import InvalidInput
from offline_training.replay.candidate import Candidate, candidate
from online_serving.pipeline.request import Filter
from online_serving.settings import ServingSettings
from streaming.settings import BanditMode, BanditSettings, ScoreForm

BANDIT, SERVING = BanditSettings(explore_share=0.3), ServingSettings(candidates=50)


def read(folder: Path, text: str) -> Candidate:
    path = folder / "bolder.toml"
    path.write_text(text)
    return candidate(str(path), BANDIT, SERVING)


def test_what_a_file_leaves_out_is_as_served(tmp_path: Path) -> None:
    found = read(tmp_path, "")
    assert (found.name, found.release, found.bandit, found.serving) == ("bolder", None, BANDIT, SERVING)
    assert found.bandit.mode is BanditMode.EXPLORE


def test_overrides(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        """
        name = "the paper's form"
        mode = "greedy"
        [bandit]
        form = "published"
        [serving]
        cluster_candidates = 0
        category_boosts = { comedy = 2.0 }
        [rules]
        exclude_items = ["i1"]
        exclude_categories = ["horror"]
        """,
    )
    assert (found.bandit.form, found.bandit.explore_share) == (ScoreForm.PUBLISHED, 0.3)
    assert (found.serving.cluster_candidates, found.serving.candidates) == (0, 50)
    assert found.serving.category_boosts == {"comedy": 2.0}
    assert found.exclude == Filter(("i1",), ("horror",))
    assert found.bandit.mode is BanditMode.GREEDY


def test_baselines(tmp_path: Path) -> None:
    assert read(tmp_path, 'baseline = "frozen"').bandit.mode is BanditMode.OFF
    popular = read(tmp_path, 'baseline = "popularity"')
    assert popular.by_popularity
    assert popular.serving.candidates == 1_000_000  # everything that is allowed


def test_a_release_by_its_id() -> None:
    found = candidate("0123456789abcdef", BANDIT, SERVING)
    assert (found.name, found.release) == ("release 0123456789abcdef", "0123456789abcdef")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("alpha = 1", "alpha cannot be 1"),
        ("[bandit]\nalpha = -1", "alpha cannot be -1"),
        ("[bandit]\nalhpa = 1", "alhpa cannot be 1"),
        ("[serving]\nport = 80", "serving.port is not read by a request"),
        ("[serving]\nranker = false", "serving.ranker is off and bandit.mode is explore"),
        ('mode = "sometimes"', "mode cannot be 'sometimes'"),
        ('mode = "off"\nbaseline = "frozen"', "mode off and baseline frozen exclude each other"),
        ("name = ", "cannot be read"),
    ],
)
def test_what_has_no_meaning_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        read(tmp_path, text)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"nothing\.toml cannot be read"):
        candidate(str(tmp_path / "nothing.toml"), BANDIT, SERVING)
