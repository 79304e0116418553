"""How topics are made, and what is said of those that somebody else made."""

import re
from pathlib import Path

import pytest

from feature_store.contracts.errors import LogMismatch
from streaming import settings
from streaming.settings import KafkaSettings
from streaming.topics import check_topic, create_command, topic_configs

SETTINGS = KafkaSettings(retention_days=7, replication=3)
WEEK = 7 * 86_400_000


def _found(**changes: str) -> dict[str, str]:
    return topic_configs(SETTINGS, "events") | {name.replace("_", "."): value for name, value in changes.items()}


def test_topics_are_made_with_everything_stated() -> None:
    made = topic_configs(SETTINGS, "events")
    assert made["retention.ms"] == str(WEEK)
    assert made["min.insync.replicas"] == "2"
    assert made["message.timestamp.type"] == "LogAppendTime"
    assert made["unclean.leader.election.enable"] == "false"
    assert topic_configs(SETTINGS, "catalogue")["retention.ms"] == "-1"  # whoever reconciles reads all of it
    assert topic_configs(KafkaSettings(), "events")["min.insync.replicas"] == "1"


def test_nothing_is_said_of_a_topic_as_we_make_it_or_of_which_the_cluster_tells_nothing() -> None:
    assert check_topic(SETTINGS, "events", _found(), 3, 3) == []
    assert check_topic(SETTINGS, "events", _found(retention_ms="-1"), 3, 3) == []
    assert check_topic(SETTINGS, "events", {}, 1, 1) == []


@pytest.mark.parametrize(
    ("found", "replicas", "said"),
    [
        (_found(retention_ms=str(WEEK // 7)), 3, "'events' keeps records for 1 days.*ask for 7 days"),
        (_found(message_timestamp_type="CreateTime"), 3, "message.timestamp.type CreateTime"),
        (_found(unclean_leader_election_enable="true"), 3, "unclean leader elections"),
        (_found(), 1, "one replica on 3 brokers"),
        (_found(min_insync_replicas="1"), 3, "min.insync.replicas 1.*Set it to 2"),
    ],
)
def test_what_is_amiss_is_named(found: dict[str, str], replicas: int, said: str) -> None:
    (warning,) = check_topic(SETTINGS, "events", found, replicas, 3)
    assert re.search(said, warning)


def test_a_compacted_log_of_events_is_refused() -> None:
    with pytest.raises(LogMismatch, match=r"cleanup\.policy compact"):
        check_topic(SETTINGS, "events", _found(cleanup_policy="compact"), 3, 3)


def test_a_prefix_stands_before_every_topic_and_each_is_made_as_what_it_is() -> None:
    shop = SETTINGS.model_copy(update={"topic_prefix": "shop-", "partitions": 16})
    assert shop.topics == ("shop-events", "shop-catalogue", "shop-deadletter")
    assert SETTINGS.topics == ("events", "catalogue", "deadletter")
    assert topic_configs(shop, "shop-events") == topic_configs(SETTINGS, "events")
    assert topic_configs(shop, "shop-catalogue") == topic_configs(SETTINGS, "catalogue")
    assert create_command(shop, "kafka:9092", "shop-events") == (
        "kafka-topics.sh --bootstrap-server kafka:9092 --create --topic shop-events --partitions 16 "
        "--replication-factor 3 --config message.timestamp.type=LogAppendTime --config cleanup.policy=delete "
        f"--config retention.ms={WEEK} --config min.insync.replicas=2 --config unclean.leader.election.enable=false"
    )
    assert "--topic shop-catalogue --partitions 1 " in create_command(shop, "kafka:9092", "shop-catalogue")


def test_topics_are_called_by_their_whole_names_everywhere() -> None:
    """`settings.events_topic` has no prefix."""
    root, bare = Path(settings.__file__).parents[1], re.compile(r"\.(events|catalogue|deadletter)_topic\b")
    rooms = ("feature_store", "streaming", "online_serving", "offline_training", "infra", "benchmarks")
    sources = {path for room in rooms for path in (root / room).rglob("*.py")} - {Path(settings.__file__)}
    assert [path for path in sources if bare.search(path.read_text())] == []
