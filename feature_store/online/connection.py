"""Clients of the online store, from its URL: a server's, or that of sentinels, which know which server it is now.

redis://[user:password@]host:6379/0, rediss:// with TLS (?ssl_ca_certs=/etc/ca.pem), or, with sentinels in front of it,
redis+sentinel:// and rediss+sentinel://[user:password@]host:26379,host:26379/NAME/0, whose own password, if they have
one, is ?sentinel_username=...&sentinel_password=...
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.retry
import redis.sentinel
from redis.backoff import NoBackoff
from redis.connection import parse_url

from feature_store.contracts.errors import InvalidInput

_SENTINEL = "+sentinel"
_SENTINEL_PORT = 26379
_SENTINEL_SECONDS = 0.4  # less than recommendations wait for Redis
_OF_SENTINELS = "sentinel_"  # begins what in the query is theirs


class _Sentinels(NamedTuple):
    places: list[tuple[str, int]]
    name: str  # of what they watch
    own: dict[str, Any]  # how they are connected to: there are others where one does not answer
    server: dict[str, Any]  # how the server is


def blocking_client(url: str, *, connections: int | None = None, **settings: Any) -> redis.Redis:
    """A client for code that may block, before any command. connections: more callers wait; None: as many as are
    asked for, as with sentinels. settings: of each connection. Raises InvalidInput if the URL is none."""
    if sentinels := _sentinels(url):
        once = {**sentinels.own, "retry": redis.retry.Retry(NoBackoff(), 0)}
        watching = redis.sentinel.Sentinel(sentinels.places, sentinel_kwargs=once, **settings)
        found: redis.Redis = watching.master_for(sentinels.name, **sentinels.server, **settings)
        return found
    try:
        if connections is None:
            return redis.Redis.from_url(url, **settings)
        pool = redis.BlockingConnectionPool.from_url(url, max_connections=connections, **settings)
    except ValueError:  # which would show a part of the URL
        raise _no_url() from None
    return redis.Redis.from_pool(pool)


@asynccontextmanager
async def asyncio_client(url: str, *, connections: int, **settings: Any) -> AsyncIterator[redis.asyncio.Redis]:
    """The same for the event loop, closed at the end."""
    async with AsyncExitStack() as closing:
        if sentinels := _sentinels(url):
            once = {**sentinels.own, "retry": redis.asyncio.retry.Retry(NoBackoff(), 0)}
            watching = redis.asyncio.sentinel.Sentinel(sentinels.places, sentinel_kwargs=once, **settings)
            for one in watching.sentinels:
                closing.push_async_callback(one.aclose)
            client: redis.asyncio.Redis = watching.master_for(sentinels.name, **sentinels.server, **settings)
        else:
            try:
                pool = redis.asyncio.BlockingConnectionPool.from_url(url, max_connections=connections, **settings)
            except ValueError:
                raise _no_url() from None
            client = redis.asyncio.Redis.from_pool(pool)
        closing.push_async_callback(client.aclose)
        yield client


def _sentinels(url: str) -> _Sentinels | None:
    """None if the URL names a server."""
    scheme, _, rest = url.partition("://")
    if not scheme.endswith(_SENTINEL):
        return None
    try:
        parts = urlsplit(f"//{rest}")
        user, _, hosts = parts.netloc.rpartition("@")
        name, _, database = parts.path.strip("/").partition("/")
        query = parse_qsl(parts.query)
        places = [_place(host) for host in hosts.split(",")]
        own = urlencode([one for one in query if not one[0].startswith(_OF_SENTINELS)])
        server = parse_url(f"{scheme.removesuffix(_SENTINEL)}://{user}{'@' if user else ''}{hosts.split(',')[0]}"
                           f"/{database}?{own}")  # fmt: skip
    except ValueError:
        raise _no_url() from None
    if not name:
        raise InvalidInput("redis.url names no service: write redis+sentinel://host:26379,host:26379/NAME/0.")
    for place in ("host", "port"):
        server.pop(place, None)
    theirs = {name.removeprefix(_OF_SENTINELS): value for name, value in query if name.startswith(_OF_SENTINELS)}
    connection = {key: value for key, value in server.items() if key not in ("username", "password", "db")}
    limits = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), _SENTINEL_SECONDS)
    return _Sentinels(places, name, limits | connection | theirs, server)


def _place(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    return (host.strip("[]"), int(port)) if colon else (text, _SENTINEL_PORT)


def _no_url() -> InvalidInput:
    return InvalidInput(
        "redis.url is not a URL of Redis. Write redis://user:password@host:6379/0, rediss:// with TLS, or "
        "redis+sentinel://host:26379,host:26379/NAME/0."
    )
