"""Who changed what: one line of JSON for each change by a key, in a file a month and host."""

import logging
import os
import socket
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from feature_store.contracts.clock import Clock
from feature_store.contracts.identity import Keyring

_log = logging.getLogger(__name__)

_USERS = "/v1/users/"


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


def without_user_ids(path: str, keyring: Keyring) -> str:
    """A request's path with the user's key in the place of their id."""
    return _USERS + keyring.user_key(path.removeprefix(_USERS)) if path.startswith(_USERS) else path
