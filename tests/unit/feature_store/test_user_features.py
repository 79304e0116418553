"""What is known of a user, as Redis answers it."""

from feature_store.definitions import HistoryEvent
from feature_store.settings import RedisSettings
from feature_store.user_features import NOBODY, UserCommands

COMMANDS = UserCommands(RedisSettings())


def read(*events: tuple[str, str, str]) -> list[HistoryEvent]:
    return COMMANDS.features([], ["\0".join(event).encode() for event in events], None).history


def test_a_history_is_read_whatever_its_ids_hold() -> None:
    plain = [("b", "rating+", "20"), ("é", "dislike-", "5")]
    expected = [HistoryEvent("b", "rating+", 20), HistoryEvent("é", "dislike-", 5)]
    assert read(*plain) == expected
    assert read(("a\0b", "click+", "7"), *plain) == [HistoryEvent("a\0b", "click+", 7), *expected]


def test_nothing_is_known_of_nobody() -> None:
    assert COMMANDS.features([], [], None) == NOBODY
