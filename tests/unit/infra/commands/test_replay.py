"""`matchloop replay` from its options to the page, on an installation that has served for a while."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.offline_training.replay.conftest import MADE, VISIT_MS, Installation

ROOT = Path(__file__).parents[4]
SETTINGS = """
[bandit]
explore_share = 0.4
explore_top_k = 6
[serving]
candidates = 12
cluster_candidates = 8
list_candidates = 0
fresh_candidates = 4
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("home")
    Installation(root, visits=300)
    (root / "settings.toml").write_text(SETTINGS)
    (root / "careful.toml").write_text("[bandit]\nexplore_share = 0.3\n")
    (root / "frozen.toml").write_text('baseline = "frozen"\n')
    return root


def replay(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MATCHLOOP_", "MLFLOW_"))}
    environment = {**kept, "MATCHLOOP_HOME": str(home)}
    command = [sys.executable, "-m", "infra.cli", "--config", str(home / "settings.toml"), "replay", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)


def test_other_settings_on_the_log(home: Path) -> None:
    done = replay(home, "--candidate", str(home / "careful.toml"), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["candidate"] == "careful"
    assert found["refused"] is None
    assert found["reproduced"]["equal"] == 1.0
    assert found["evaluation"]["decisions"] == 300
    assert "What would careful have earned?" in Path(found["page"]).read_text()


def test_a_stretch_and_a_page_of_ones_own(home: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    stretch = ("--from", str(MADE), "--to", "1970-01-01T00:18:20", "--out", str(page))  # 100 visits
    done = replay(home, "--candidate", str(home / "careful.toml"), *stretch)
    assert done.returncode == 0, done.stderr
    assert "careful would have earned" in done.stdout
    assert f"The page is {page}." in done.stdout
    assert MADE + 100 * VISIT_MS == 1_100_000
    assert "100 logged decisions" in page.read_text()


def test_what_the_log_cannot_tell_ends_with_the_reason(home: Path) -> None:
    done = replay(home, "--candidate", str(home / "frozen.toml"), "--to", str(MADE + 20 * VISIT_MS))
    assert done.returncode == 1
    assert "Refused: " in done.stdout
    assert "This log cannot tell." in done.stdout


def test_times_and_files_that_are_none_are_named(home: Path) -> None:
    done = replay(home, "--candidate", str(home / "careful.toml"), "--from", "yesterday")
    assert done.stderr.startswith("matchloop: --from 'yesterday' is not a time.")
    assert "nothing.toml cannot be read" in replay(home, "--candidate", "nothing.toml").stderr
