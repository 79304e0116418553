"""How topics are made, and what is said of those that are there."""

from collections.abc import Mapping

from feature_store.contracts.errors import LogMismatch
from streaming.settings import KafkaSettings

_DAY_MS = 86_400_000
_FOR_EVER = "-1"


def topic_configs(settings: KafkaSettings, topic: str) -> dict[str, str]:
    """The configuration that a topic is made with. The catalogue's log is kept: whoever builds the catalogue anew reads
    all of it."""
    days = settings.retention_days if topic == settings.topics.events else settings.deadletter_days
    return {
        "message.timestamp.type": "LogAppendTime",  # see admission.events_of
        "cleanup.policy": "delete",
        "retention.ms": _FOR_EVER if topic == settings.topics.catalogue else str(int(days * _DAY_MS)),
        "min.insync.replicas": str(max(1, settings.replication - 1)),
        "unclean.leader.election.enable": "false",
    }


def partitions_wanted(settings: KafkaSettings, topic: str) -> int:
    """How many partitions a topic is made with."""
    return settings.partitions if topic == settings.topics.events else 1


def create_command(settings: KafkaSettings, bootstrap: str, topic: str) -> str:
    """The command of Kafka's own tools that makes a topic as it is to be."""
    configs = [f"--config {name}={value}" for name, value in topic_configs(settings, topic).items()]
    shape = f"--partitions {partitions_wanted(settings, topic)} --replication-factor {settings.replication}"
    return " ".join([f"kafka-topics.sh --bootstrap-server {bootstrap} --create --topic {topic} {shape}", *configs])


def check_topic(
    settings: KafkaSettings, topic: str, found: Mapping[str, str], replicas: int, brokers: int
) -> list[str]:
    """What is to be said of a topic that is there: warnings, each a sentence. found: its configuration, as far as the
    cluster tells. Raises LogMismatch if events would be lost in it."""
    wanted = topic_configs(settings, topic)
    if "compact" in found.get("cleanup.policy", ""):
        raise LogMismatch(
            f"Topic {topic!r} has cleanup.policy {found['cleanup.policy']}: of a user's events only the "
            "last would stay. Set it to delete."
        )
    said = []
    if (retention := found.get("retention.ms")) is not None and _shorter(retention, wanted["retention.ms"]):
        said.append(
            f"Topic {topic!r} keeps records for {_days(retention)}, kafka.retention_days and kafka.deadletter_days ask "
            f"for {_days(wanted['retention.ms'])}: a sink that is down for longer loses what it has not read."
        )
    if found.get("message.timestamp.type", "LogAppendTime") != "LogAppendTime":
        said.append(
            f"Topic {topic!r} has message.timestamp.type {found['message.timestamp.type']}: a server whose clock is "
            "ahead closes everybody's feedback windows. Set it to LogAppendTime."
        )
    if found.get("unclean.leader.election.enable") == "true":
        said.append(f"Topic {topic!r} allows unclean leader elections, which lose acknowledged records.")
    if replicas == 1 and brokers >= 3:
        said.append(f"Topic {topic!r} has one replica on {brokers} brokers: it is gone with one of them.")
    if replicas > 1 and found.get("min.insync.replicas") == "1":
        said.append(
            f"Topic {topic!r} has min.insync.replicas 1: a record may be acknowledged by one broker only. "
            f"Set it to {replicas - 1}."
        )
    return said


def _shorter(found: str, wanted: str) -> bool:
    if found == _FOR_EVER:
        return False
    return wanted == _FOR_EVER or int(found) < int(wanted)


def _days(milliseconds: str) -> str:
    return "ever" if milliseconds == _FOR_EVER else f"{int(milliseconds) / _DAY_MS:.3g} days"
