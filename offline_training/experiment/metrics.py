"""What an experiment can be judged by, each declared once: verdict, guardrails, page and MLflow read it from here."""

from typing import NamedTuple

PER_USER = "users"  # a denominator: the metric is a mean over users


class Metric(NamedTuple):
    """A ratio of two sums over users, per `scale`. numerator, denominator: columns of outcomes.Sums; PER_USER: 1 for
    every user who met the variant."""

    words: str
    numerator: str
    denominator: str
    scale: float = 1.0
    higher_is_better: bool = True


METRICS = {
    "reward_per_impression": Metric("reward per 1,000 impressions", "reward", "impressions", 1_000.0),
    "positive_rate": Metric("positive impressions per 1,000", "positives", "impressions", 1_000.0),
    "reward_per_user": Metric("reward per user", "reward", PER_USER),
    "reward_per_decision": Metric("reward per slate", "reward", "decisions"),
    "decisions_per_user": Metric("slates per user", "decisions", PER_USER),
    "success_rate": Metric("slates with a positive item, of 100", "successes", "decisions", 100.0),
    "items_per_slate": Metric("items per slate", "impressions", "decisions"),
    "items_per_user": Metric("different items per user", "different_items", PER_USER),
    "latency_ms": Metric("ms from request to decision", "latency", "timed", 1.0, higher_is_better=False),
}
