"""Runs a command that does not outlive the process that started it, not even one that was killed with SIGKILL.

    python -I -S leash.py PARENT_PID SIGNAL COMMAND...           becomes the command (same process id)
    python -I -S leash.py PARENT_PID SIGNAL --group COMMAND...   stays, and ends what the command forked as well
    python -I -S leash.py PARENT_PID SIGNAL --lock FILE ...      either, and holds the lock on the file while it lives

PARENT_PID is the process that starts this one; SIGNAL is what the command gets when that process dies. On Linux the
kernel keeps the promise (PR_SET_PDEATHSIG). Elsewhere only an orderly end of the parent ends the command.

This file is run by its path, before any package can be imported: standard library only.
"""

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

_PR_SET_PDEATHSIG = 1
_GRACE_SECONDS = 5.0
_LOCK_SECONDS = 3.0  # for one that has just been killed to be gone
_POLL_SECONDS = 0.05


def leashed(
    command: list[str], parent: int, sent: signal.Signals, group: bool = False, lock: Path | None = None
) -> list[str]:
    """The command line that runs `command` under a leash held by the process `parent`, if nobody holds the lock."""
    options = ["--lock", str(lock)] if lock else []
    options += ["--group"] if group else []
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(parent), sent.name, *options, *command]


def _die_with(parent: int, sent: signal.Signals) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(sent), 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel was told
        raise SystemExit(1)


def _hold(path: str) -> None:
    """Takes the lock for as long as this process lives, whatever program it becomes."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.set_inheritable(descriptor, True)
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                directory = Path(path).parent
                raise SystemExit(
                    f"matchloop: {directory} is in use by the embedded server of another stack, perhaps on another "
                    "host. Stop that one, or set the addresses of your own servers: hosts that share a home share them."
                ) from None
            time.sleep(_POLL_SECONDS)


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
    if command[0] == "--lock":
        _hold(command[1])
        command = command[2:]
    if command[0] != "--group":
        os.execvp(command[0], command)
    return _run_group(command[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
