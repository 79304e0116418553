"""One training at a time: whose turn it is, on a real server, with a real process that dies."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import redis

from feature_store.contracts.errors import Unavailable
from feature_store.lease import Lease, Owner
from feature_store.settings import RedisSettings

HERE = "here-1"
# Takes the lock, says so, and waits to be killed.
HOLDING = """
import sys, redis
from feature_store.lease import Lease, Owner
from feature_store.settings import RedisSettings

url, prefix, place = sys.argv[1:]
owner = Owner.this_process("retrain", "here", place, 1_800_000_000_000)
with Lease(redis.Redis.from_url(url), RedisSettings(prefix=prefix), owner):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> RedisSettings:
    return RedisSettings(prefix=request.node.name[-40:].strip("_-[]"))


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def owner(job: str = "train") -> Owner:
    return Owner.this_process(job, "here", HERE, 1_800_000_000_000)


def holding(redis_url: str, prefix: RedisSettings, place: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", HOLDING, redis_url, prefix.prefix, place]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_one_is_told_whose_turn_it_is(client: redis.Redis, prefix: RedisSettings) -> None:
    first = owner("retrain")
    with Lease(client, prefix, first):
        with pytest.raises(Unavailable) as refused, Lease(client, prefix, owner()):
            pass
        words = str(refused.value)
        assert f"`matchloop retrain` of {first.user} on here (process {first.pid})" in words
        assert "since 2027-01-15 08:00:00 UTC" in words
        assert "`matchloop train --break-lock`" in words
    with Lease(client, prefix, owner()):
        pass
    assert not client.exists(f"{prefix.prefix}:training")


def test_other_prefixes_are_other_installations(client: redis.Redis, prefix: RedisSettings) -> None:
    with Lease(client, prefix, owner()), Lease(client, RedisSettings(prefix="another"), owner()):
        pass


def test_the_turn_of_a_dead_process_of_this_host_is_over(
    client: redis.Redis, redis_url: str, prefix: RedisSettings
) -> None:
    with holding(redis_url, prefix, HERE) as process:
        with pytest.raises(Unavailable, match=rf"process {process.pid}\)"), Lease(client, prefix, owner()):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        with Lease(client, prefix, owner()) as mine:
            mine.check()


def test_that_of_another_host_lasts_until_its_session_ends(
    client: redis.Redis, redis_url: str, prefix: RedisSettings
) -> None:
    with holding(redis_url, prefix, "elsewhere-2") as process:
        process.kill()
        process.wait()
        with pytest.raises(Unavailable, match=r"its lock ends within 60 s"), Lease(client, prefix, owner()):
            pass
        assert 0 < client.pttl(f"{prefix.prefix}:training") <= 60_000
        client.pexpire(f"{prefix.prefix}:training", 0)
        with Lease(client, prefix, owner()):
            pass


def test_another_process_with_the_same_id_is_not_the_owner() -> None:
    mine = owner()
    assert not mine.is_dead(HERE)
    assert msgspec.structs.replace(mine, began=mine.began - 1).is_dead(HERE)
    assert not msgspec.structs.replace(mine, began=mine.began - 1).is_dead("elsewhere-2")


def test_whose_lock_was_broken_goes_no_further(client: redis.Redis, prefix: RedisSettings) -> None:
    with Lease(client, prefix, owner("retrain")) as first:
        with Lease(client, prefix, owner(), broken=True) as second:
            with pytest.raises(Unavailable, match=r"lost its lock.*`matchloop train`"):
                first.check()
            second.check()
        # It is free again by now, and nothing was made to serve meanwhile.
        first.check()
    assert not client.exists(f"{prefix.prefix}:training")


def test_an_owner_that_was_silent_for_too_long_keeps_what_nobody_took(
    client: redis.Redis, prefix: RedisSettings
) -> None:
    with Lease(client, prefix, owner()) as mine:
        client.delete(f"{prefix.prefix}:training")
        mine.check()
        assert client.pttl(f"{prefix.prefix}:training") > 0


def test_it_is_renewed(client: redis.Redis, prefix: RedisSettings) -> None:
    """With a session of 300 ms the key is there for as long as it is held, however long that takes."""
    with Lease(client, prefix, owner(), session_seconds=0.3):
        key = f"{prefix.prefix}:training"
        before, now = 0, client.pttl(key)
        while before == 0 or now <= before:  # it runs down until the thread renews it
            before, now = now, client.pttl(key)


def test_what_another_version_wrote_is_respected(client: redis.Redis, prefix: RedisSettings) -> None:
    client.set(f"{prefix.prefix}:training", b"{}")
    with pytest.raises(Unavailable, match=r"a job of another version"), Lease(client, prefix, owner()):
        pass
    with Lease(client, prefix, owner(), broken=True):
        pass
