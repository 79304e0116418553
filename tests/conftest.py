"""What all tests share."""

import os
import time
from collections.abc import Iterator

import psutil
import pytest
from hypothesis import settings

from tests.processes import MODULE, carrying

settings.register_profile("matchloop", deadline=None)  # the first call of a kernel compiles it
settings.register_profile("fuzz", deadline=None, max_examples=5_000)  # `make fuzz` takes this one
settings.load_profile("matchloop")

_ENDING_SECONDS = 60.0


@pytest.fixture(autouse=True, scope="module")
def nothing_is_left_running(request: pytest.FixtureRequest) -> Iterator[None]:
    """No process that a module's tests started is there when the next module begins: it would take their time.

    What is left is ended, and the module fails. What the whole session shares is started `unmarked`, and stays.
    """
    mark = f"{os.getpid()} {request.node.nodeid}"
    os.environ[MODULE] = mark
    yield
    del os.environ[MODULE]
    deadline = time.monotonic() + _ENDING_SECONDS  # for those that were told to end
    while (left := carrying(MODULE, mark)) and time.monotonic() < deadline:
        psutil.wait_procs(left, timeout=0.1)
    words = [f"{process.pid} {' '.join(process.info['cmdline'] or [])[:200]}" for process in left]
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=_ENDING_SECONDS)
    assert not left, f"left running by {request.node.nodeid}: {words}"
