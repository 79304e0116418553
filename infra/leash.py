"""Runs a command that does not outlive the process that started it, not even one that was killed with SIGKILL.

    python -I -S leash.py PARENT_PID SIGNAL COMMAND...           becomes the command (same process id)
    python -I -S leash.py PARENT_PID SIGNAL --group COMMAND...   stays, and ends what the command forked as well

PARENT_PID is the process that starts this one; SIGNAL is what the command gets when that process dies. On Linux the
kernel keeps the promise (PR_SET_PDEATHSIG). Elsewhere only an orderly end of the parent ends the command.

This file is run by its path, before any package can be imported: standard library only.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

_PR_SET_PDEATHSIG = 1
_GRACE_SECONDS = 5.0


def leashed(command: list[str], parent: int, sent: signal.Signals, group: bool = False) -> list[str]:
    """The command line that runs `command` under a leash held by the process `parent`."""
    options = ["--group"] if group else []
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(parent), sent.name, *options, *command]


def _die_with(parent: int, sent: signal.Signals) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(sent), 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel was told
        raise SystemExit(1)


def _run_group(command: list[str]) -> int:
    process = subprocess.Popen(leashed(command, os.getpid(), signal.SIGKILL), process_group=0)

    def end(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    try:
        return process.wait()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE_SECONDS)
            os.killpg(process.pid, signal.SIGKILL)


def main(arguments: list[str]) -> int:
    """Runs the command named by the arguments; see the module's description."""
    parent, sent, *command = arguments
    _die_with(int(parent), signal.Signals[sent])
    if command[0] != "--group":
        os.execvp(command[0], command)
    return _run_group(command[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
