"""What is wrong with a decision, if anything is."""

import math

from feature_store.contracts.events import Decision
from feature_store.namespace import Namespace
from streaming.bandit.diag_linucb import MAX_ACTIVE_CLUSTERS


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
