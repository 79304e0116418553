"""One training job at a time for all who share a Redis prefix: whose turn it is, and until when.

    <prefix>:training  the owner as JSON; it expires when the owner has been silent for a session

The owner renews it from a thread of its own. One that died on this host is found out at once, by its process id and
when that process began; one that died elsewhere is waited for until its session ends. A key that expired while its
owner was merely slow is taken again, unless somebody else has it by then: `check` says so before anything is made to
serve.
"""

import contextlib
import getpass
import logging
import os
import secrets
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import msgspec
import psutil
import redis

from feature_store.contracts.errors import UNREADABLE, Unavailable
from feature_store.renewal import Renewal
from feature_store.settings import RedisSettings

_log = logging.getLogger(__name__)

SESSION_SECONDS = 60.0

# Takes the key if it is free, ours already, or holds ARGV[3]; returns what it holds then.
_TAKE = """
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] and held ~= ARGV[3] then return held end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
"""
_GIVE_BACK = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"


class Owner(msgspec.Struct, frozen=True):
    """Who is at work."""

    job: str  # the command
    user: str  # of the system
    host: str
    place: str  # the host until it boots, and its namespace of process ids: where `pid` means something
    pid: int
    began: float  # the process, seconds since the epoch: another one may have the pid by now
    since: int  # ms since the epoch
    token: str

    @classmethod
    def this_process(cls, job: str, host: str, place: str, now_ms: int) -> Self:
        """This process, doing the job from now on."""
        user = "somebody"
        with contextlib.suppress(OSError, KeyError):  # a container's user may have no name
            user = getpass.getuser()
        pid = os.getpid()
        return cls(job, user, host, place, pid, psutil.Process(pid).create_time(), now_ms, secrets.token_hex(8))

    def is_dead(self, place: str) -> bool:
        """Whether the process is known to have ended, seen from a place; elsewhere nobody knows."""
        if self.place != place:
            return False
        try:
            return psutil.Process(self.pid).create_time() != self.began
        except psutil.NoSuchProcess:
            return True

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"`matchloop {self.job}` of {self.user} on {self.host} (process {self.pid}), since {since}"


class Lease:
    """The turn of one owner. A context manager: held from its beginning until its end."""

    def __init__(
        self,
        client: redis.Redis,
        settings: RedisSettings,
        owner: Owner,
        broken: bool = False,
        session_seconds: float = SESSION_SECONDS,
    ) -> None:
        """broken: take it from whoever has it."""
        self._redis: Any = client  # its type information has the answers of scripts wrong
        self._key = f"{settings.prefix}:training"
        self._owner, self._broken, self._session = owner, broken, session_seconds
        self._value = msgspec.json.encode(owner)
        self._renewal = Renewal("lease", session_seconds, self._renew)

    def __enter__(self) -> Self:
        """Takes it. Raises Unavailable, naming the owner, while somebody else has it."""
        held = self._take()
        if held != self._value and (self._broken or _is_dead(held, self._owner.place)):
            _log.warning("the lock of %s is taken over", _words(held))
            held = self._take(held)
        if held != self._value:
            raise Unavailable(
                f"Another training is under way: {_words(held)}. Two at once would undo each other's work. Wait for it "
                f"to end; if it has died, its lock ends within {self._session:.0f} s. To take its place all the same: "
                f"`matchloop {self._owner.job} --break-lock`."
            )
        self._renewal.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._renewal.stop()
        try:
            self._redis.eval(_GIVE_BACK, 1, self._key, self._value)
        except redis.RedisError as unanswered:
            _log.warning("the lock is not given back, it ends by itself: %s", unanswered)

    def check(self) -> None:
        """Raises Unavailable if somebody else has taken it."""
        held = self._take()
        if held != self._value:
            raise Unavailable(f"This training has lost its lock, and goes no further: {_words(held)} took it over.")

    def _take(self, instead_of: bytes = b"") -> bytes:
        held: bytes = self._redis.eval(_TAKE, 1, self._key, self._value, int(self._session * 1000), instead_of)
        return held

    def _renew(self) -> bool:
        held = self._take()
        if held != self._value:
            _log.error("the lock was taken over by %s", _words(held))
        return held == self._value


def _is_dead(held: bytes, place: str) -> bool:
    owner = _decoded(held)
    return owner is not None and owner.is_dead(place)


def _words(held: bytes) -> str:
    return str(_decoded(held) or "a job of another version of MatchLoop")


def _decoded(held: bytes) -> Owner | None:
    try:
        return msgspec.json.decode(held, type=Owner)
    except UNREADABLE:
        return None
