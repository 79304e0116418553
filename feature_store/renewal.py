"""A thread that renews what ends by itself when nobody renews it."""

import logging
import threading
from collections.abc import Callable

import redis

_log = logging.getLogger(__name__)

_PER_SESSION = 6


class Renewal:
    """Renews a session several times before it would end. A store that does not answer is asked again next time."""

    def __init__(self, name: str, session_seconds: float, renew: Callable[[], bool]) -> None:
        """name: of the thread. renew: says whether there is something to renew any more."""
        self._name, self._pause, self._renew = name, session_seconds / _PER_SESSION, renew
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=name, daemon=True)

    def start(self) -> None:
        """The session has begun."""
        self._thread.start()

    def stop(self) -> None:
        """Returns when nothing is being renewed any more."""
        self._stop.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._stop.wait(self._pause):
            try:
                if not self._renew():
                    return
            except redis.RedisError as error:
                _log.warning("the %s is not renewed: %s", self._name, error)
