"""How companies run Redis: behind TLS, with users who may do little, and with sentinels that change the server; and
what no server may be like."""

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import redis
from pydantic import SecretStr

from feature_store.bandit_state import BanditStore, Commit, Position
from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.identity import Keyring
from feature_store.online.connection import asyncio_client, blocking_client
from feature_store.online.server import check_server
from feature_store.online.store import AsyncOnlineStore, OnlineStore
from feature_store.settings import RedisSettings
from feature_store.shown import pack
from feature_store.sums import NO_ROWS
from feature_store.user_features import NOBODY
from infra import servers
from infra.checks import Check
from infra.connections import redis_client
from infra.server_checks import redis_checks
from infra.settings import Settings
from tests.api_server import wait_until
from tests.integration.conftest import running
from tests.proxies import proxy

PREFIX = "shop"
SETTINGS = RedisSettings(prefix=PREFIX)
USER = (PREFIX, "on", ">open sesame", f"~{PREFIX}:*", "+@all", "-@admin", "-@dangerous", "+info")


def checks(url: str, home: Path) -> dict[str, Check]:
    settings = Settings(home=home, redis=RedisSettings(url=SecretStr(url), prefix=PREFIX))
    return {check.name: check for check in redis_checks(settings)}


@pytest.fixture
def admin(redis_url: str) -> Iterator[redis.Redis]:
    """Whoever may do everything; what they set is set back."""
    with redis.Redis.from_url(redis_url) as client:
        before = {name: client.config_get(name)[name] for name in ("maxmemory", "maxmemory-policy", "appendonly")}
        yield client
        for name, value in before.items():
            client.config_set(name, value)


def commit(state: BanditStore, offset: int) -> None:
    """Moves a partition's position on by one."""
    state.commit("r-1", 0, Position("log", offset) if offset else None,
                 Commit(position=Position("log", offset + 1), logs=[], stream_time=0, learning=True, changes=NO_ROWS,
                        opened={}, closed=[], snapshot=None))  # fmt: skip


def test_a_server_that_evicts_is_refused_and_one_that_keeps_nothing_is_named(
    admin: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    assert {name: check.ok for name, check in checks(redis_url, tmp_path).items()} == {
        "redis": True, "redis round trip": True, "redis server": True,
    }  # fmt: skip
    admin.config_set("maxmemory-policy", "allkeys-lru")
    assert check_server(admin) == []  # nothing is evicted without a limit
    admin.config_set("maxmemory", "100mb")
    settings = Settings(home=tmp_path, redis=RedisSettings(url=SecretStr(redis_url)))
    with pytest.raises(InvalidInput, match=r"evicts keys when it is full .*allkeys-lru"), redis_client(settings):
        pass
    assert not checks(redis_url, tmp_path)["redis server"].ok
    admin.config_set("maxmemory-policy", "noeviction")
    admin.config_set("appendonly", "no")
    assert "no append-only file" in checks(redis_url, tmp_path)["redis persistence"].found
    with redis_client(settings) as client:  # it may be used all the same
        assert len(check_server(client)) == 1


def test_a_user_of_one_prefix_can_do_all_that_is_needed_there_and_nothing_elsewhere(
    admin: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    admin.execute_command("ACL", "SETUSER", *USER)
    url = redis_url.replace("redis://", f"redis://{PREFIX}:open%20sesame@")
    assert all(check.ok for check in checks(url, tmp_path).values())
    with contextlib.closing(blocking_client(url)) as client:
        state, online = BanditStore(client, SETTINGS), OnlineStore(client, SETTINGS)
        commit(state, 0)
        assert state.position("r-1", 0) == Position("log", 1)
        online.users.put_profiles([("anna", ["age=5"], 1)])
        online.deployment.check_secret(Keyring(b"0123456789abcdef"))
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.get("films:secret")
    admin.execute_command("ACL", "SETUSER", *USER, "-set")
    found = checks(url, tmp_path)["redis round trip"]
    assert not found.ok
    assert "'set'" in found.found
    assert "open sesame" not in repr(checks(url.replace("open%20sesame", "open%20barley"), tmp_path))


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Of 127.0.0.1, and its key."""
    made, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    files = ("-keyout", str(key), "-out", str(made))
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *files, *subject]
    subprocess.run(command, check=True, capture_output=True)
    return made, key


def test_a_server_behind_tls(redis_url: str, tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    port = servers.free_port()
    with proxy(port, int(redis_url.rpartition(":")[2].partition("/")[0]), context):
        known = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate[0]}"
        assert all(check.ok for check in checks(known, tmp_path).values())
        assert asyncio.run(_answers(known))
        unknown = checks(f"rediss://127.0.0.1:{port}/0", tmp_path)
        assert (unknown["redis"].ok, len(unknown)) == (False, 1)


async def _answers(url: str) -> bool:
    async with asyncio_client(url, connections=2) as client:
        store = AsyncOnlineStore(client, SETTINGS)
        await store.users.mark_shown("anna", pack([("a", 1_000)]))
        await store.ping()
        return (await store.users.get("anna")).shown != NOBODY.shown


def test_sentinels_say_which_server_it_is_also_when_it_changes(tmp_path: Path) -> None:
    ports = [servers.free_port() for _ in range(3)]
    first, second, sentinel = ports
    with contextlib.ExitStack() as stack:
        for number, port in enumerate((first, second)):
            folder = tmp_path / str(number)
            folder.mkdir()
            of = ["--replicaof", f"127.0.0.1 {first}"] if number else []
            command = [*servers.redis_command(port, folder), *of]
            stack.enter_context(running(command, partial(servers.redis_answers, servers.LOOPBACK, port)))
        admin = stack.enter_context(redis.Redis(port=second))
        wait_until(lambda: admin.info("replication")["master_link_status"] == "up")
        conf = tmp_path / "sentinel.conf"
        conf.write_text(f"bind 127.0.0.1\nport {sentinel}\nsentinel monitor state 127.0.0.1 {first} 1\n")
        command = [servers.redis_command(0, tmp_path)[0], str(conf), "--sentinel"]
        stack.enter_context(running(command, partial(servers.redis_answers, servers.LOOPBACK, sentinel)))
        watching = stack.enter_context(redis.Redis(port=sentinel))
        wait_until(lambda: watching.execute_command("SENTINEL", "REPLICAS", "state"))

        url = f"redis+sentinel://127.0.0.1:{servers.free_port()},127.0.0.1:{sentinel}/state/0"
        client = stack.enter_context(contextlib.closing(blocking_client(url, connections=3)))
        state = BanditStore(client, SETTINGS)
        commit(state, 0)
        assert client.info("server")["tcp_port"] == first
        wait_until(lambda: _follows(first, second))
        wait_until(lambda: _fails_over(watching))
        # Until the old one knows, it takes what is then lost; an updater finds its position there, and folds it anew.
        old = stack.enter_context(redis.Redis(port=first))
        wait_until(lambda: old.info("replication")["role"] == "slave")

        def moved_on() -> bool:
            with contextlib.suppress(redis.RedisError):
                commit(state, 1)
                return True
            return False

        wait_until(moved_on)
        assert client.info("server")["tcp_port"] == second
        assert state.position("r-1", 0) == Position("log", 2)
        assert asyncio.run(_answers(url))
        assert all(check.ok for check in checks(url, tmp_path).values())


def _fails_over(sentinel: redis.Redis) -> bool:
    """Tells it to. It refuses while it has not heard from the second server for some seconds."""
    try:
        sentinel.execute_command("SENTINEL", "FAILOVER", "state")
    except redis.ResponseError as refused:
        if "NOGOODSLAVE" in str(refused):
            return False
        raise
    return True


def _follows(first: int, second: int) -> bool:
    """Whether the second server has all that the first one was given."""
    with redis.Redis(port=first) as one, redis.Redis(port=second) as other:
        return bool(one.info("replication")["master_repl_offset"] <= other.info("replication")["slave_repl_offset"])


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://secret@host", "is not a URL of Redis"),
        ("redis://host:secret", "is not a URL of Redis"),
        ("redis+sentinel://host:secret/state", "is not a URL of Redis"),
        ("redis+sentinel://a:1,b:2", "names no service"),
    ],
)
def test_an_url_that_is_none_is_refused_without_showing_it(url: str, problem: str) -> None:
    for connect in (lambda: blocking_client(url, connections=1), lambda: asyncio.run(_answers(url))):
        with pytest.raises(InvalidInput, match=problem) as refused:
            connect()
        assert "secret" not in str(refused.value)
