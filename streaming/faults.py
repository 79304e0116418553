"""What is wrong with a decision, or with feedback on one, if anything is."""

import math
from collections.abc import Container

from feature_store.contracts.catalogue import MAX_ID_CHARACTERS
from feature_store.contracts.events import MAX_VALUE, Decision, Feedback
from feature_store.contracts.identity import DecisionRef
from feature_store.namespace import Namespace
from streaming.bandit.diag_linucb import MAX_ACTIVE_CLUSTERS
from streaming.open_decisions import OpenDecision

_QUOTED = 100  # characters of what a client sent
_MOST_EVENTS = 1_000  # of one decision: what is remembered of it is bounded


def fault(decision: Decision, namespace: Namespace) -> str | None:
    """Why a decision cannot be learnt from. Within these bounds no sum becomes infinite or not a number."""
    clusters, weights, n = decision.clusters, decision.weights, len(decision.items)
    shown = decision.predicted[: decision.shown]
    if not (decision.shown <= n == len(decision.predicted) == len(decision.edges)):
        return f"it shows {decision.shown} of {n} items, with columns of other lengths beside them"
    if not len(set(clusters)) == len(clusters) == len(weights) <= MAX_ACTIVE_CLUSTERS:
        return f"it has {len(clusters)} clusters, some twice or too many, or without a weight of their own"
    if clusters and not (min(weights) > 0 and max(weights) <= 1 and math.isfinite(sum(weights))):
        return f"its weights {weights} do not lie in (0, 1]"
    if shown and not (min(shown) >= 0 and max(shown) <= 1 and math.isfinite(sum(shown))):
        return f"its predictions {shown} do not lie in [0, 1]"
    if decision.edges and max(decision.edges) >> len(clusters):
        return f"an item has an edge to a cluster beyond the {len(clusters)} that are active"
    return _foreign(decision, namespace)


def feedback_fault(
    feedback: Feedback, named: DecisionRef | None, decision: OpenDecision, declared: Container[str]
) -> str | None:
    """Why feedback does not fit its decision. named: what its id says of that. declared: the types of events."""
    if feedback.user != decision.user:
        return "it comes from another user than its decision's"
    if named is None or named.logged:
        if feedback.item not in decision.items and feedback.item not in decision.pinned:
            return "its item was not in the decision's slate"
    elif not 0 < len(feedback.item) <= MAX_ID_CHARACTERS:
        return f"its item's id has {len(feedback.item)} characters, and may have 1 to {MAX_ID_CHARACTERS}"
    if feedback.type not in declared:
        return f"event type {feedback.type[:_QUOTED]!r} is not declared in rewards.weights"
    if not abs(feedback.value) <= MAX_VALUE:  # also what is not a number
        return f"its value {feedback.value} is not a number between -{MAX_VALUE:g} and {MAX_VALUE:g}"
    if len(decision.event_ids) >= _MOST_EVENTS and feedback.id not in decision.event_ids:
        return f"its decision has had {_MOST_EVENTS} events already"
    return None


def _foreign(decision: Decision, namespace: Namespace) -> str | None:
    """Why a decision does not fit the clusters of its release, as far as they are known."""
    if decision.release == namespace.release:
        known = namespace.graph.clusters
    elif decision.release in namespace.translations:
        known = namespace.translations[decision.release].clusters
    else:
        return None
    highest = max(decision.clusters, default=-1)
    return f"its cluster {highest} is not one of the {known} of its release" if highest >= known else None
