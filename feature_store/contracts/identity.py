"""Pseudonymous user keys and signed decision ids, both derived from the installation's secret.

A user key is a keyed hash: logs and lake carry it instead of the user's id. A decision id carries the user key and the
time of the decision under a signature, so that feedback is routed to the right partition, and a forged id is refused,
without a look-up. It also says whether the log was to have the decision: feedback on one that it has not is told by
its id, and so is an event that belongs to none.
"""

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import NamedTuple

from feature_store.contracts.errors import ForgedDecision, InvalidInput

MASKED = "AAAAAAAA"  # begins what stands for an erased user's key: a key begins so once in 2**48

_MASKED_BYTES = 6
_KEY_BYTES = 16
_TIME_BYTES = 6
_NONCE_BYTES = 8
_SIGNATURE_BYTES = 10
_BODY_BYTES = _KEY_BYTES + _TIME_BYTES + _NONCE_BYTES
_MIN_SECRET_BYTES = 16
ID_CHARACTERS = 54  # of a decision id
UNLOGGED = (
    1 << 47
)  # in the time of a decision id: the highest bit of the time, which times do not need (events.Milliseconds)
NO_TIME = 0  # of the decision that an event belongs to, if it belongs to none


class DecisionRef(NamedTuple):
    """What a decision id says about its decision."""

    user: str
    time: int
    logged: bool = True  # False: it was answered although the log had not taken it

    @property
    def is_none(self) -> bool:
        """Whether there was no decision at all: the id stands for an event that belongs to no recommendation."""
        return not self.logged and self.time == NO_TIME


class Keyring:
    """Makes and reads the ids that only this installation can make.

    Raises InvalidInput if the secret is shorter than 16 bytes.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) < _MIN_SECRET_BYTES:
            raise InvalidInput(
                f"The secret has {len(secret)} bytes, at least {_MIN_SECRET_BYTES} are needed. "
                "Remove the file to have a new one made, or set MATCHLOOP_SECRET to a long random text."
            )
        self._user_key = hashlib.blake2b(b"user", key=secret[:64]).digest()
        self._decision_key = hashlib.blake2b(b"decision", key=secret[:64]).digest()
        self.fingerprint = hashlib.blake2b(b"fingerprint", digest_size=16, key=secret[:64]).hexdigest()  # to compare

    def user_key(self, user_id: str) -> str:
        """The pseudonym of a user: 22 characters, the same for the same id and secret."""
        digest = hashlib.blake2b(user_id.encode(), digest_size=_KEY_BYTES, key=self._user_key).digest()
        return _encode(digest)

    def decision_id(self, user: str, time_ms: int, nonce: bytes | None = None, *, logged: bool = True) -> str:
        """A signed id for a decision made for the user key at the time; the nonce (8 bytes) is random unless given.
        logged: whether the decision is in the log."""
        nonce = secrets.token_bytes(_NONCE_BYTES) if nonce is None else nonce
        time = time_ms if logged else time_ms | UNLOGGED
        body = _decode(user) + time.to_bytes(_TIME_BYTES, "big") + nonce
        if len(body) != _BODY_BYTES:
            raise InvalidInput(f"{user!r} is not a user key: expected 22 characters made by Keyring.user_key.")
        return _encode(body + self._sign(body))

    def no_decision_id(self, user: str, event_id: str) -> str:
        """What stands in the place of a decision id with an event of the user key that belongs to no recommendation:
        the same for the same event, so that it counts once."""
        nonce = hashlib.blake2b(event_id.encode(), digest_size=_NONCE_BYTES, key=self._decision_key).digest()
        return self.decision_id(user, NO_TIME, nonce, logged=False)

    def open_decision_id(self, decision_id: str) -> DecisionRef:
        """Reads an id made by decision_id. Raises ForgedDecision for anything else."""
        try:
            raw = _decode(decision_id)
        except (binascii.Error, ValueError):
            raw = b""
        body, signature = raw[:_BODY_BYTES], raw[_BODY_BYTES:]
        genuine = len(raw) == _BODY_BYTES + _SIGNATURE_BYTES and hmac.compare_digest(signature, self._sign(body))
        # The round trip refuses spellings that decode to the same bytes: an id must be one string only.
        if not genuine or _encode(raw) != decision_id:
            raise ForgedDecision(
                f"Decision id {decision_id[:80]!r} was not made by this installation. "
                "Send back the decision_id of a recommendation, unchanged."
            )
        return _read(raw)

    def _sign(self, body: bytes) -> bytes:
        return hashlib.blake2b(body, digest_size=_SIGNATURE_BYTES, key=self._decision_key).digest()


class Masks:
    """What stands for the keys and ids of erased users: alike for alike, and without the secret nothing leads back."""

    def __init__(self, secret: bytes) -> None:
        """secret: up to 64 random bytes, to be thrown away."""
        self._secret = secret

    def user(self, key: str) -> str:
        """In the place of a user key."""
        return _encode(bytes(_MASKED_BYTES) + self._digest(key, _KEY_BYTES - _MASKED_BYTES))

    def decision(self, decision_id: str) -> str:
        """In the place of a decision id: one of the masked user, made at the same time."""
        named = read_decision_id(decision_id)
        if named is None:
            return self.text(decision_id)
        time = named.time if named.logged else named.time | UNLOGGED
        rest = self._digest(decision_id, _NONCE_BYTES + _SIGNATURE_BYTES)
        return _encode(_decode(self.user(named.user)) + time.to_bytes(_TIME_BYTES, "big") + rest)

    def text(self, text: str) -> str:
        """In the place of any other id."""
        return _encode(self._digest(text, _KEY_BYTES))

    def _digest(self, text: str, size: int) -> bytes:
        return hashlib.blake2b(text.encode(), digest_size=size, key=self._secret).digest()


def read_decision_id(decision_id: str) -> DecisionRef | None:
    """What a decision id says without a look at its signature; None if it has not the form of one."""
    try:
        raw = _decode(decision_id)
    except (binascii.Error, ValueError):
        return None
    return _read(raw) if len(raw) == _BODY_BYTES + _SIGNATURE_BYTES else None


def load_or_create_secret(path: Path) -> bytes:
    """Reads the installation's secret, or makes one readable by its owner only. Safe when called twice at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    if not path.exists():
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(32).encode())
        try:
            os.link(fresh, path)  # atomic, and fails if somebody else was first
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return path.read_bytes().strip()


def _read(raw: bytes) -> DecisionRef:
    time = int.from_bytes(raw[_KEY_BYTES : _KEY_BYTES + _TIME_BYTES], "big")
    return DecisionRef(_encode(raw[:_KEY_BYTES]), time & ~UNLOGGED, not time & UNLOGGED)


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
