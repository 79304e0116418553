"""From what a user did with a shown item to one number."""

from collections.abc import Sequence

from streaming.settings import Aggregation, RewardSettings


def reward(settings: RewardSettings, events: Sequence[tuple[str, float]]) -> float:
    """The reward of one shown item.

    events: (type, value) in order of arrival, at least one. Each is worth weight * value; together they make their
    sum, their maximum (also when all are negative) or the latest, cut to [minimum, maximum]. Raises KeyError for an
    undeclared type.
    """
    worth = [settings.weights[kind] * value for kind, value in events]
    match settings.aggregation:
        case Aggregation.SUM:
            combined = sum(worth)
        case Aggregation.MAX:
            combined = max(worth)
        case Aggregation.LATEST:
            combined = worth[-1]
    return min(max(combined, settings.minimum), settings.maximum)
