"""What `matchloop doctor` asks servers that are not ours: do they answer, may this client do what it has to, and do
they keep what they are given."""

import contextlib
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import redis

from feature_store.contracts.addresses import without_passwords
from feature_store.contracts.clock import SystemClock
from feature_store.contracts.errors import InvalidInput, MatchLoopError, Unavailable
from feature_store.object_store import ObjectStore
from feature_store.online.server import check_server
from feature_store.online.store import OnlineStore
from infra.checks import Check, attempt
from infra.connections import event_log, unchecked_redis_client
from infra.settings import Settings
from streaming.kafka import Log
from streaming.log_check import missing_rights, round_trip


def kafka_checks(settings: Settings) -> Iterator[Check]:
    """Of the cluster that the settings name. A tick goes into the log and back: to replays it is nothing."""
    try:
        log = event_log(settings)
        missing = log.missing()
    except MatchLoopError as error:
        yield Check("kafka", False, str(error), "Check kafka.bootstrap and kafka.properties.")
        return
    yield Check("kafka", True, f"{log.bootstrap} answers", "")
    if missing:
        may = settings.kafka.create_topics
        found = f"not there yet: {', '.join(missing)}"
        yield Check("topics", may, found, "" if may else log.to_create(missing, "kafka.create_topics is false"))
        return
    yield _topics(log)
    lacking = missing_rights(log.rights())
    remedy = "Give this client's user these rights: the log is read, written and described." if lacking else ""
    yield Check("kafka rights", not lacking, f"missing: {', '.join(lacking)}" if lacking else "none missing", remedy)
    back = "Give this client's user Read and Write on the topics, and see that all brokers can be reached from here."
    yield attempt("kafka round trip", lambda: f"{1000 * round_trip(log, SystemClock()):.0f} ms", back)


def _topics(log: Log) -> Check:
    try:
        problems = log.problems()
    except MatchLoopError as error:
        problems = [str(error)]
    return Check("topics", not problems, " ".join(problems) or "as they should be", "Change them." if problems else "")


def redis_checks(settings: Settings) -> Iterator[Check]:
    """Of the server that the settings name."""
    try:
        with contextlib.closing(unchecked_redis_client(settings)) as client:
            client.ping()
            yield Check("redis", True, "it answers", "")
            yield attempt("redis round trip", lambda: _redis_round_trip(client, settings.redis.prefix),
                          f"Give its user all commands but dangerous ones on {settings.redis.prefix}:*.")  # fmt: skip
            yield from _redis_keeps(client)
    except (redis.RedisError, MatchLoopError, OSError) as error:
        yield Check("redis", False, str(error), "Check redis.url.")


def _redis_round_trip(client: redis.Redis, prefix: str) -> str:
    key = f"{prefix}:doctor"
    with client.pipeline(transaction=True) as pipe:
        pipe.set(key, "1", ex=60)
        pipe.get(key)
        pipe.delete(key)
        pipe.execute()
    return "written, read and deleted"


def _redis_keeps(client: redis.Redis) -> Iterator[Check]:
    try:
        warnings = check_server(client)
    except InvalidInput as error:
        found, _, remedy = str(error).partition(". ")
        yield Check("redis server", False, found, remedy)
        return
    for warning in warnings:
        found, _, remedy = warning.partition(". ")
        yield Check("redis persistence", False, found, remedy)
    if not warnings:
        yield Check("redis server", True, "evicts nothing, and keeps what it is given", "")


def lake_check(settings: Settings) -> Iterator[Check]:
    """Of the object store that the settings name, if the lake is in one: an object is written and removed there."""
    if (store := settings.layout.store) is not None:
        yield attempt("lake", lambda: _store_round_trip(store), "Check lake.url, lake.endpoint and the credentials.")


def _store_round_trip(store: ObjectStore) -> str:
    path = store.root / "_doctor"
    path.put(b"1")
    if path.create(b"2"):
        raise InvalidInput(f"{store.url} does not refuse a conditional put (If-None-Match: *): choose another store.")
    path.read_bytes()
    listed = path.name in {found.name for found in store.root.glob("_*")}
    path.unlink()
    if not listed:
        raise Unavailable(f"{store.url} does not list what was just written: choose a store that is consistent.")
    return f"{store.url}: written, refused where it was there, listed, read and deleted"


def secret_check(settings: Settings) -> Iterator[Check]:
    """Whether the secret is the one that Redis was first used with; nothing where that cannot be asked."""
    if settings.redis.url is None or (settings.secret is None and not (settings.home / "secret").exists()):
        return  # nothing to compare with, or nothing to compare
    try:
        with contextlib.closing(unchecked_redis_client(settings)) as client:
            OnlineStore(client, settings.redis).deployment.check_secret(settings.keyring())
    except (redis.RedisError, OSError, Unavailable):
        return  # that is another check's to say
    except InvalidInput as error:
        found, _, remedy = str(error).partition(". ")
        yield Check("secret", False, found, remedy)
    else:
        yield Check("secret", True, "the one that Redis was first used with", "")


def mlflow_check(uri: str) -> Check:
    """Whether the tracking server listens."""
    return attempt("mlflow", lambda: _connect(uri), "Check mlflow.tracking_uri.")


def _connect(url: str) -> str:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    with socket.create_connection((parts.hostname or "", port), timeout=5):
        return f"{without_passwords(url)} accepts connections"
