"""Rights, as clusters tell of them."""

from streaming.log_check import missing_rights


def test_what_is_lacking_is_named_by_topic() -> None:
    all_of_them = ["READ", "WRITE", "CREATE", "DESCRIBE", "DESCRIBE_CONFIGS"]
    told = {"events": all_of_them, "catalogue": ["READ", "DESCRIBE", "DESCRIBE_CONFIGS"], "deadletter": []}
    assert missing_rights(told) == ["WRITE on 'catalogue'"]
