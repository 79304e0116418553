"""What people may see of addresses."""

import pytest

from feature_store.contracts.addresses import without_passwords


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://u:hunter2@host:1/0", "redis://u:***@host:1/0"),
        ("rediss://:hunter2@host", "rediss://:***@host"),
        ("redis://host?db=1&password=hunter2&x=y", "redis://host?db=1&password=***&x=y"),
        ("redis+sentinel://a:1,b:2/x?sentinel_password=hunter3", "redis+sentinel://a:1,b:2/x?sentinel_password=***"),
        ("http://u:hunt@er2@host/path", "http://u:***@host/path"),
        ("MLflow at http://a:hunter2@h and http://b:hunter3@i: no", "MLflow at http://a:***@h and http://b:***@i: no"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("kafka:9092,kafka-2:9092", "kafka:9092,kafka-2:9092"),
    ],
)
def test_passwords_in_urls_are_hidden_and_nothing_else(text: str, shown: str) -> None:
    assert without_passwords(text) == shown
