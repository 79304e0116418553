"""A session is renewed until it ends, through a store that does not answer for a while."""

import threading

import pytest
import redis

from feature_store.renewal import Renewal

NEVER = 1e6  # seconds


def test_it_is_renewed_until_there_is_nothing_to_renew(caplog: pytest.LogCaptureFixture) -> None:
    answers = iter([True, None, True, False])
    ended = threading.Event()

    def renew() -> bool:
        answer = next(answers)
        if answer is None:
            raise redis.ConnectionError("away")
        if not answer:
            ended.set()
        return answer

    renewal = Renewal("session", 0.001, renew)
    renewal.start()
    ended.wait()
    renewal.stop()
    assert list(answers) == []
    assert "the session is not renewed: away" in caplog.text


def test_stopping_does_not_wait_for_the_next_time() -> None:
    renewal = Renewal("session", NEVER, lambda: True)
    renewal.start()
    renewal.stop()
