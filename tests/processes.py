"""Processes as tests look for them: by a variable that they inherited from whoever started them."""

import os

import psutil

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
