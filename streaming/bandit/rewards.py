"""From what a user did with a shown item to one number."""

from collections.abc import Sequence

from streaming.settings import VIEW, Aggregation, RewardSettings


def reward(settings: RewardSettings, events: Sequence[tuple[str, float]]) -> float:
    """The reward of one shown item.

    events: (type, value) in order of arrival, at least one. Each is worth weight * value, or where its type has a
    threshold, the weight from there on and 0 below; together they make their sum, their maximum (also when all are
    negative) or the latest, cut to [minimum, maximum]. A view only says that the item was seen: it counts while nothing
    else has come, wherever it stands. Raises KeyError for an undeclared type.
    """
    answers = [event for event in events if event[0] != VIEW] or events
    worth = [_worth(settings, kind, value) for kind, value in answers]
    match settings.aggregation:
        case Aggregation.SUM:
            combined = sum(worth)
        case Aggregation.MAX:
            combined = max(worth)
        case Aggregation.LATEST:
            combined = worth[-1]
    return min(max(combined, settings.minimum), settings.maximum)


def is_positive(settings: RewardSettings, events: Sequence[tuple[str, float]]) -> bool:
    """Whether the latest of one item's events says that the user likes it: its worth reaches `positive`, by itself or,
    where events add up, together with those before it. Raises KeyError for an undeclared type."""
    adds = settings.aggregation is Aggregation.SUM and _worth(settings, *events[-1]) > 0
    return reward(settings, events if adds else events[-1:]) >= settings.positive


def _worth(settings: RewardSettings, kind: str, value: float) -> float:
    threshold = settings.thresholds.get(kind)
    if threshold is None:
        return settings.weights[kind] * value
    return settings.weights[kind] if value >= threshold else 0.0
