"""What all tests share."""

import os
import time
from collections.abc import Iterator

import psutil
import pytest
from hypothesis import settings

from tests.processes import carrying

settings.register_profile("matchloop", deadline=None)  # the first call of a kernel compiles it
settings.load_profile("matchloop")

_MARK = "TEST_MODULE"  # not MATCHLOOP_*: the stack gives its processes no such variables
_ENDING_SECONDS = 60.0


@pytest.fixture(autouse=True, scope="module")
def nothing_is_left_running(request: pytest.FixtureRequest) -> Iterator[None]:
    """No process that a module's tests started is there when the next module begins: it would take their time.

    What is left is ended, and the module fails. Fixtures of the whole session are older than the mark, and stay.
    """
    mark = f"{os.getpid()} {request.node.nodeid}"
    os.environ[_MARK] = mark
    yield
    del os.environ[_MARK]
    deadline = time.monotonic() + _ENDING_SECONDS  # for those that were told to end
    while (left := carrying(_MARK, mark)) and time.monotonic() < deadline:
        psutil.wait_procs(left, timeout=0.1)
    words = [f"{process.pid} {' '.join(process.info['cmdline'] or [])[:200]}" for process in left]
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=_ENDING_SECONDS)
    assert not left, f"left running by {request.node.nodeid}: {words}"
