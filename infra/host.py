"""This host: its name in a home directory that several hosts share, and what tells its processes from others'."""

import hashlib
import re
import socket
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_PROCESSES = Path("/proc/self/ns/pid")
_ODD = re.compile(r"[^A-Za-z0-9._-]")


def host_name(given: str | None) -> str:
    """The name that was given, or the system's, as a part of a path."""
    return given or _ODD.sub("-", socket.gethostname()) or "localhost"


def run_name(host: str) -> str:
    """A name for the host until it boots: a process id written down under another one means nothing now.

    Containers that share a host's name have process ids of their own; they get different names, too.
    """
    try:
        origin = _BOOT.read_text().strip() + str(_PROCESSES.readlink())
    except OSError:  # not Linux: the start times of processes must do
        origin = ""
    return f"{host}-{hashlib.blake2b(origin.encode(), digest_size=4).hexdigest()}"
