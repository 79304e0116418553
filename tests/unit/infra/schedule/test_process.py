"""A scheduled retrain as a process: what its end is taken for."""

import sys
from pathlib import Path

import pytest

from infra.schedule.keeper import Result
from infra.schedule.process import RetrainProcess

MADE = '{"release": "r", "namespace": "r-1", "metrics": {}}'


def run(folder: Path, code: str) -> Result:
    process = RetrainProcess(folder, command=[sys.executable, "-c", code])
    while (result := process.ended()) is None:
        pass
    return result


@pytest.mark.parametrize(
    ("code", "result"),
    [
        (f"print('{MADE}')", Result("promoted", "release r serves, with namespace r-1")),
        (
            "import sys; sys.exit('40% towers\\n\\nmatchloop: Another training is under way.\\n')",
            Result("failed", "Another training is under way."),
        ),
        ("raise SystemExit(3)", Result("failed", "it ended with 3")),
    ],
)
def test_how_it_ended(code: str, result: Result, tmp_path: Path) -> None:
    assert run(tmp_path, code) == result


def test_words_that_are_none_are_a_failure(tmp_path: Path) -> None:
    assert run(tmp_path, "print('done')").outcome == "failed"


def test_it_is_interrupted(tmp_path: Path) -> None:
    code = "import sys; print('begun', file=sys.stderr, flush=True); sys.stdin = open('/dev/zero'); sys.stdin.read()"
    process = RetrainProcess(tmp_path, command=[sys.executable, "-c", code])
    process.stop()
    result = process.ended()
    assert result is not None
    assert result.outcome == "failed"
