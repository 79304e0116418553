"""Waiting before trying again."""

import random


class Backoff:
    """How long to wait before the next attempt: twice as long each time, and drawn at random, so that processes which
    lost the same thing at the same moment do not all ask for it at once."""

    def __init__(self, first: float, most: float) -> None:
        """The limits of the first wait, and of the longest; seconds."""
        self._first, self._most = first, most
        self._attempts = 0

    def wait(self) -> float:
        """Seconds until the next attempt."""
        limit = min(self._first * 2.0**self._attempts, self._most)
        self._attempts += 1
        return random.uniform(limit / 4, limit)

    def reset(self) -> None:
        """An attempt succeeded."""
        self._attempts = 0
