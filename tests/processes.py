"""Processes as tests look for them: by a variable that they inherited from whoever started them."""

import contextlib
import os
from collections.abc import Iterator

import psutil

MODULE = "TEST_MODULE"  # not MATCHLOOP_*: the stack gives its processes no such variables
_PYTHONS_OWN = "multiprocessing.resource_tracker"  # of the test process: it ends with that


def carrying(variable: str, value: str) -> list[psutil.Process]:
    """The live processes with this value of the environment variable, except this one. `info` has their command
    line."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ", "status"]):
        command, environment = process.info["cmdline"] or [], process.info["environ"] or {}
        if (
            environment.get(variable) == value
            and process.pid != os.getpid()
            and process.info["status"] != psutil.STATUS_ZOMBIE
            and not any(_PYTHONS_OWN in word for word in command)
        ):
            found.append(process)
    return found


@contextlib.contextmanager
def unmarked() -> Iterator[None]:
    """What is started meanwhile belongs to no module: it stays until the session ends."""
    mark = os.environ.pop(MODULE, None)
    try:
        yield
    finally:
        if mark is not None:
            os.environ[MODULE] = mark
