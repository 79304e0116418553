"""What stands in front of a server as companies have them: TLS, and for Kafka SASL, which no broker of ours has."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import secrets
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Admit = Callable[[Streams, Streams], Awaitable[bool]]  # client, server -> whether the client is let through

_API_VERSIONS, _HANDSHAKE, _AUTHENTICATE = 18, 17, 36
_UNSUPPORTED_VERSION, _UNSUPPORTED_MECHANISM, _REFUSED = 35, 33, 58
_HASHES = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}
_BEARER = "OAUTHBEARER"
_MECHANISMS = ("PLAIN", _BEARER, *_HASHES)
_ROUNDS = 4096


@contextlib.contextmanager
def proxy(port: int, behind: int, context: ssl.SSLContext | None = None, admit: Admit | None = None) -> Iterator[None]:
    """Forwards connections of a port to another one. context: it speaks TLS. admit: what comes before."""
    started, loops = threading.Event(), list[asyncio.AbstractEventLoop]()
    stop = asyncio.Event()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def accept(*client: *Streams) -> None:
        server = await asyncio.open_connection("127.0.0.1", behind)
        try:
            with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):  # the last: it ends
                if admit is None or await admit(client, server):
                    await asyncio.gather(forward(client[0], server[1]), forward(server[0], client[1]))
        finally:
            server[1].close()
            client[1].close()

    async def listen() -> None:
        async with await asyncio.start_server(accept, "127.0.0.1", port, ssl=context):
            loops.append(asyncio.get_running_loop())
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(listen()))
    thread.start()
    started.wait()
    yield
    loops[0].call_soon_threadsafe(stop.set)
    thread.join()


def sasl(passwords: Mapping[str, str], tokens: Collection[str] = ()) -> Admit:
    """Admits who says a user and their password, by PLAIN or SCRAM (RFC 5802), or one of the tokens."""

    async def admit(client: Streams, server: Streams) -> bool:
        conversation: _Plain | _Bearer | _Scram | None = None
        while True:
            frame = await _frame(client[0])
            kind, version, number = struct.unpack_from(">hhi", frame)
            body = frame[10 + max(0, struct.unpack_from(">h", frame, 8)[0]) :]  # behind the name of the client
            answer = struct.pack(">i", number)
            if kind == _API_VERSIONS and version > 0:
                answer += struct.pack(">hihhh", _UNSUPPORTED_VERSION, 1, _API_VERSIONS, 0, 0)
            elif kind == _API_VERSIONS:
                server[1].write(struct.pack(">i", len(frame)) + frame)
                said = await _frame(server[0])
                (count,) = struct.unpack_from(">i", said, 6)
                ours = struct.pack(">hhhhhh", _HANDSHAKE, 0, 1, _AUTHENTICATE, 0, 1)
                answer = said[:6] + struct.pack(">i", count + 2) + said[10:] + ours
            elif kind == _HANDSHAKE:
                conversation = _conversation(body[2:].decode(), passwords, tokens)
                answer += struct.pack(">hi", 0 if conversation else _UNSUPPORTED_MECHANISM, len(_MECHANISMS))
                answer += b"".join(struct.pack(">h", len(one)) + one.encode() for one in _MECHANISMS)
            elif kind == _AUTHENTICATE and conversation is not None:
                token = conversation.answer(body[4:])
                error = struct.pack(">hh", 0, -1) if token is not None else struct.pack(">hh2s", _REFUSED, 2, b"no")
                answer += error + struct.pack(">i", len(token or b"")) + (token or b"")
                answer += struct.pack(">q", 0) if version else b""
            else:
                return False  # whoever does not say who they are is told nothing
            client[1].write(struct.pack(">i", len(answer)) + answer)
            if conversation is not None and conversation.admitted:
                return True

    return admit


def _conversation(
    mechanism: str, passwords: Mapping[str, str], tokens: Collection[str]
) -> "_Plain | _Bearer | _Scram | None":
    if mechanism == "PLAIN":
        return _Plain(passwords)
    if mechanism == _BEARER:
        return _Bearer(tokens)
    return _Scram(passwords, _HASHES[mechanism]) if mechanism in _HASHES else None


class _Plain:
    """RFC 4616."""

    def __init__(self, passwords: Mapping[str, str]) -> None:
        self._passwords, self.admitted = passwords, False

    def answer(self, token: bytes) -> bytes | None:
        _, user, password = token.decode().split("\0")
        self.admitted = self._passwords.get(user) == password
        return b"" if self.admitted else None


class _Bearer:
    """RFC 7628."""

    def __init__(self, tokens: Collection[str]) -> None:
        self._tokens, self.admitted = tokens, False

    def answer(self, token: bytes) -> bytes | None:
        said = [part.removeprefix("auth=Bearer ") for part in token.decode().split("\1") if part.startswith("auth=")]
        self.admitted = said[0] in self._tokens
        return b"" if self.admitted else None


class _Scram:
    """RFC 5802, without channel binding."""

    def __init__(self, passwords: Mapping[str, str], hashed: str) -> None:
        self._passwords, self._hashed, self._said, self.admitted = passwords, hashed, "", False
        self._salt = secrets.token_bytes(16)
        self._user = ""

    def answer(self, token: bytes) -> bytes | None:
        text = token.decode()
        fields = dict(part.split("=", 1) for part in text.split(",") if "=" in part)
        if not self._said:
            self._user = fields["n"]
            salt = base64.b64encode(self._salt).decode()
            first = f"r={fields['r']}{secrets.token_hex(8)},s={salt},i={_ROUNDS}"
            self._said = f"{text.removeprefix('n,,')},{first}"
            return first.encode()
        password = self._passwords.get(self._user, secrets.token_hex()).encode()
        salted = hashlib.pbkdf2_hmac(self._hashed, password, self._salt, _ROUNDS)
        key, spoken = self._sign(salted, b"Client Key"), f"{self._said},{text.rpartition(',')[0]}".encode()
        signature = self._sign(hashlib.new(self._hashed, key).digest(), spoken)
        proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
        self.admitted = hmac.compare_digest(base64.b64decode(fields["p"]), proof)
        own = self._sign(self._sign(salted, b"Server Key"), spoken)
        return b"v=" + base64.b64encode(own) if self.admitted else None

    def _sign(self, key: bytes, message: bytes) -> bytes:
        return hmac.digest(key, message, self._hashed)


async def _frame(reader: asyncio.StreamReader) -> bytes:
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(size)
