"""One command a bench: those of an installation, and those of a checkout."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[4]
INSTALLED = ("feature_store", "streaming", "online_serving", "offline_training", "infra")


def bench(at: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`matchloop bench ...` as the code at that place has it."""
    code = f"import sys; sys.path.insert(0, {str(at)!r}); from infra.cli import main; main()"
    command = [sys.executable, "-I", "-c", code, "bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)


def test_a_checkout_has_the_comparisons_wherever_it_is_called_from() -> None:
    assert "retrieval" in bench(ROOT, "--help").stdout
    assert "--models" in bench(ROOT, "retrieval", "--help").stdout


def test_an_installation_says_what_the_comparisons_need(tmp_path: Path) -> None:
    for room in INSTALLED:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    done = bench(tmp_path, "regret")
    assert done.returncode == 1
    assert (
        "There is no bench 'regret'. There are: chaos, event-loop, faults, freshness, lake, loop, serving, "
        in done.stderr
    )
    assert "need a checkout with benchmarks/, and the extra `bench`" in done.stderr
    assert "--kills" in bench(tmp_path, "chaos", "--help").stdout
