"""The switch that stops learning at once: a record in every partition, so that a replay obeys it at the same place."""

from feature_store.contracts.clock import Clock
from feature_store.contracts.events import Switch, encode
from streaming.kafka import Log, Writer
from streaming.settings import KafkaSettings


def set_learning(kafka: KafkaSettings, bootstrap: str, learning: bool, clock: Clock) -> None:
    """Stops or resumes learning from here on. Returns when every partition has it, or raises Unavailable."""
    record = encode([Switch(learning=learning, time=clock.now_ms())])
    writer = Writer(bootstrap)
    try:
        places = [
            writer.send(kafka.events_topic, None, record, partition)
            for partition in range(Log(kafka, bootstrap).partitions())
        ]
        for place in places:
            place.result()
    finally:
        writer.close()
