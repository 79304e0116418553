"""A module that leaves a process running fails, and the process is ended."""

import sys
from pathlib import Path

import psutil
import pytest

pytest_plugins = ["pytester"]


def test_a_module_that_leaves_a_process_running_fails(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    pytester.makeconftest("import tests.conftest as ours\nours._ENDING_SECONDS = 0.1\nfrom tests.conftest import *\n")
    pytester.makepyfile(
        test_left=f"""
        import subprocess, pathlib
        def test_starts_one():
            left = subprocess.Popen([{sys.executable!r}, "-c", "import time; time.sleep(600)"])
            pathlib.Path("pid").write_text(str(left.pid))
        """,
        test_next="def test_comes_after():\n    pass\n",
    )
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    done.assert_outcomes(passed=2, errors=1)
    done.stdout.fnmatch_lines(["*left running by test_left.py*time.sleep(600)*"])
    left = int((pytester.path / "pid").read_text())
    assert not psutil.pid_exists(left)
