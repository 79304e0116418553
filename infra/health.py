"""Whether a program works, and what its log says if it does not."""

import re
from collections.abc import Mapping
from pathlib import Path

import psutil

from feature_store.contracts.errors import Unavailable
from infra.programs import API, PUBLIC, Program

_LOG_BYTES = 100_000
_LOG_LINES = 3
_LOG_CHARACTERS = 400  # of a line; what follows is a traceback
_ERROR = re.compile(r"^\S+ (ERROR|CRITICAL) |^matchloop: ")


def check(program: Program, pid: int, ports: Mapping[str, int]) -> None:
    """Raises OSError, Unavailable or psutil.Error, with the reason, unless the process works."""
    port = ports[program.name]
    if port not in listening(pid):  # somebody else may: that one's answers would prove nothing
        raise Unavailable(f"it does not listen on port {port}")
    program.answers(port)
    if program.role == API and ports[PUBLIC] not in listening(pid):
        raise Unavailable(f"it does not listen on port {ports[PUBLIC]}")


def problem(program: Program, pid: int, ports: Mapping[str, int]) -> str | None:
    """What keeps a process from working; None if nothing does."""
    try:
        check(program, pid, ports)
    except (OSError, Unavailable, psutil.Error) as error:
        return str(error)
    return None


def listening(pid: int) -> set[int]:
    """The ports that a process and its children listen on. Raises psutil.Error if it has ended."""
    process = psutil.Process(pid)
    return {
        connection.laddr.port
        for member in [process, *process.children(recursive=True)]
        for connection in member.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


def last_words(log: Path, start: int) -> str:
    """What the log says from the byte on: its last errors, or else its last lines; a line break before each."""
    try:
        with log.open("rb") as file:
            file.seek(max(start, log.stat().st_size - _LOG_BYTES))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    said = [line for line in lines if _ERROR.search(line)] or lines
    return "".join(f"\n    {line[:_LOG_CHARACTERS]}" for line in said[-_LOG_LINES:]) + "\n" if said else ""
