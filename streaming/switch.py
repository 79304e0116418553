"""The switch that stops learning at once: a record in every partition, so that a replay obeys it at the same place."""

from feature_store.contracts.clock import Clock
from feature_store.contracts.events import Switch, encode
from streaming.kafka import Log


def set_learning(log: Log, learning: bool, clock: Clock) -> None:
    """Stops or resumes learning from here on. Returns when every partition has it, or raises Unavailable."""
    log.append_everywhere(encode([Switch(learning=learning, time=clock.now_ms())]))
