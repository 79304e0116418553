"""API keys: what each one may do, hashed at rest, in a file that every process follows.

A key is 32 random bytes, so a plain SHA-256 of it can be stored: there is nothing to guess.
"""

import fcntl
import hashlib
import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec

from feature_store.contracts.clock import Clock
from feature_store.contracts.errors import InvalidInput
from feature_store.durable import write_file
from online_serving.settings import RATE, ServingSettings

_log = logging.getLogger(__name__)

FILE = "keys.json"  # in the home directory
_PREFIX = "ml"
_SECRET_BYTES = 32
_LOOK_SECONDS = 1.0


class Scope(StrEnum):
    """What a key may do."""

    RECOMMEND = "recommend"  # ask for recommendations, similar and popular items
    FEEDBACK = "feedback"  # say what users did, and what is known of them
    MERGE = "merge"  # say that a visitor is a user: for servers, never for a page
    CATALOGUE = "catalogue"  # read and write items
    ADMIN = "admin"  # everything


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it is stored."""

    id: str
    name: str  # what it is for
    scopes: list[Scope]
    digest: str  # SHA-256 of the key, in hex
    created: int  # ms since the epoch
    expires: int | None = None  # ms since the epoch; None: never
    rate: Annotated[str, msgspec.Meta(pattern=RATE)] | None = None  # None: serving.rate_limit

    def may(self, scope: Scope) -> bool:
        """Whether it has the scope."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


class _Stored(msgspec.Struct, frozen=True):
    keys: list[Key]


class KeyFile:
    """The file of keys. Every method raises InvalidInput if it is none."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Key]:
        """The keys, oldest first; none if there is no file."""
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=_Stored).keys
        except FileNotFoundError:
            return []
        except msgspec.MsgspecError as error:
            raise InvalidInput(
                f"{self.path} is not a file of keys: {error}. Restore it, or remove it and create keys anew."
            ) from None

    def create(
        self, name: str, scopes: list[Scope], now: int, expires: int | None = None, rate: str | None = None
    ) -> tuple[Key, str]:
        """Adds a key; the key as it is stored, and what its holder sends. Only its digest is kept."""
        identity = secrets.token_hex(4)
        secret = f"{_PREFIX}_{identity}_{secrets.token_urlsafe(_SECRET_BYTES)}"
        made = Key(
            id=identity, name=name, scopes=scopes, digest=digest(secret), created=now, expires=expires, rate=rate
        )
        with self._changing() as keys:
            keys.append(made)
        return made, secret

    def revoke(self, identity: str) -> Key:
        """Removes a key by its id. Raises InvalidInput if there is none."""
        with self._changing() as keys:
            found = next((key for key in keys if key.id == identity), None)
            if found is None:
                raise InvalidInput(f"There is no key {identity!r}. `matchloop keys list` names them.")
            keys.remove(found)
        return found

    @contextmanager
    def _changing(self) -> Iterator[list[Key]]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_name(f".{self.path.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            keys = self.read()
            yield keys
            write_file(self.path, msgspec.json.format(msgspec.json.encode(_Stored(keys))))


class Keys:
    """The keys that a process accepts: the one of its settings, with every scope, and those of the file as it is."""

    def __init__(
        self, single: str | None, path: Path, required: bool, clock: Clock, look_seconds: float = _LOOK_SECONDS
    ) -> None:
        """required: whether requests need a key even while there is no file of them. look_seconds: between two looks at
        the file."""
        self._file = KeyFile(path)
        self._clock = clock
        self._look_seconds = look_seconds
        self._single = [_of_settings(single)] if single else []
        self._known = {key.digest: key for key in self._single}
        self._required = required or bool(single)
        self._seen: tuple[int, int, int] | None = None  # of the file when it was read
        self._look_at = float("-inf")  # monotonic time

    @classmethod
    def of_settings(cls, serving: ServingSettings, home: Path, clock: Clock) -> "Keys":
        """What an API process accepts."""
        single, path = serving.api_key, serving.keys_file
        return cls(single.get_secret_value() if single else None, path or home / FILE, path is not None, clock)

    @property
    def required(self) -> bool:
        """Whether requests need a key: there is one, or there was one while this process ran."""
        self._follow()
        return self._required

    def of(self, secret: bytes) -> Key | None:
        """The key that somebody sent, None if it is none, or has expired."""
        self._follow()
        found = self._known.get(hashlib.sha256(secret).hexdigest())
        expired = found is not None and found.expires is not None and found.expires <= self._clock.now_ms()
        return None if expired else found

    def _follow(self) -> None:
        """Looks at the file now and then, and reads what has changed. What is broken changes nothing."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + self._look_seconds
        try:
            found = self._file.path.stat()
            seen = found.st_mtime_ns, found.st_ino, found.st_size
        except FileNotFoundError:
            seen = None
        except OSError as error:
            _log.error("the keys stay as they were: %s", error)
            return
        if seen == self._seen:
            return
        try:
            keys = self._file.read()
        except (InvalidInput, OSError) as error:
            _log.error("the keys stay as they were: %s", error)
            return
        self._seen = seen
        self._known = {key.digest: key for key in (*self._single, *keys)}
        self._required |= seen is not None


def digest(secret: str) -> str:
    """What is stored of a key."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _of_settings(secret: str) -> Key:
    return Key(id="settings", name="serving.api_key", scopes=[Scope.ADMIN], digest=digest(secret), created=0)
