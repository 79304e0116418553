"""Who changed what: one line of JSON for each change by a key, in a file a month and host."""

import contextlib
import logging
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from feature_store.contracts.clock import Clock
from feature_store.contracts.identity import Keyring

_log = logging.getLogger(__name__)

_USERS = "/v1/users/"
_FILES = 20  # of the newest months, one a host
_ENTRY_BYTES = 2_000


class AuditLog:
    """Appends to `<home>/audit/HOST-YYYY-MM.jsonl`, which its owner alone may read."""

    def __init__(self, home: Path, clock: Clock) -> None:
        self._folder = home / "audit"
        self._clock = clock

    def note(self, who: str, what: str, status: int | None = None) -> None:
        """Notes what somebody did, and how it was answered. What cannot be written is logged: nothing else waits for
        it."""
        now = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)
        entry = {"time": now.isoformat(timespec="milliseconds"), "who": who, "what": what, "status": status}
        path = self._folder / f"{socket.gethostname()}-{now:%Y-%m}.jsonl"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.write(descriptor, msgspec.json.encode(entry) + b"\n")
            finally:
                os.close(descriptor)
        except OSError as error:
            _log.error("the audit log cannot be written: %s; what is missing there: %s", error, entry)


def newest(home: Path, count: int) -> list[dict[str, Any]]:
    """The newest entries of all hosts, the newest first. Left out are lines that a torn write left, and files that
    another user may read and we may not: whoever looks sees what there is."""
    entries: list[dict[str, Any]] = []
    for path in sorted((home / "audit").glob("*.jsonl"), key=lambda path: path.stem[-len("2026-01") :])[-_FILES:]:
        lines: list[bytes] = []
        with contextlib.suppress(OSError), path.open("rb") as file:
            file.seek(max(path.stat().st_size - count * _ENTRY_BYTES, 0))
            lines = file.read().split(b"\n")[:-1]
        for line in lines[-count:]:
            with contextlib.suppress(msgspec.DecodeError):
                entries.append(msgspec.json.decode(line, type=dict[str, Any]))
    return sorted(entries, key=lambda entry: entry["time"], reverse=True)[:count]


def without_user_ids(path: str, keyring: Keyring) -> str:
    """A request's path with the user's key in the place of their id."""
    return _USERS + keyring.user_key(path.removeprefix(_USERS)) if path.startswith(_USERS) else path
