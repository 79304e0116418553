"""Decisions and feedback for tests: complete, and with only what matters spelled out."""

from collections.abc import Sequence

import msgspec

from feature_store.contracts.events import Decision, Feedback
from feature_store.contracts.identity import Keyring

KEYRING = Keyring(b"a secret for the tests")


def decision(
    user_id: str,
    time: int,
    items: Sequence[str],
    *,
    clusters: Sequence[int] = (0,),
    weights: Sequence[float] = (1.0,),
    edges: Sequence[int] | None = None,
    predicted: Sequence[float] | None = None,
    release: str = "r",
    learns: bool = True,
    nonce: bytes = b"12345678",
) -> Decision:
    """A decision that showed the items; every item has every edge and is predicted 0.5 unless said otherwise."""
    user, n = KEYRING.user_key(user_id), len(items)
    return Decision(
        id=KEYRING.decision_id(user, time, nonce),
        user=user,
        time=time,
        surface="home",
        release=release,
        namespace=f"{release}-1",
        variant="online-matching",
        learns=learns,
        offsets=[0, 0],
        clusters=list(clusters),
        weights=list(weights),
        history=[],
        history_kinds=[],
        history_times=[],
        profile=[],
        items=list(items),
        shown=n,
        sources=["index"] * n,
        predicted=[0.5] * n if predicted is None else list(predicted),
        mean=[0.5] * n,
        bonus=[0.1] * n,
        edges=[2 ** len(clusters) - 1] * n if edges is None else list(edges),
        probabilities=[1.0] * n,
    )


def unlogged(user_id: str, time: int, *, nonce: bytes = b"12345678") -> Decision:
    """A decision that was answered and that the log does not have."""
    made = decision(user_id, time, [], nonce=nonce)
    return msgspec.structs.replace(made, id=KEYRING.decision_id(made.user, time, nonce, logged=False))


def feedback(
    of: Decision, item: str, kind: str = "click", *, event: str = "e", received: int | None = None, value: float = 1.0
) -> Feedback:
    """Feedback on an item of a decision, a second later unless said otherwise."""
    at = of.time + 1000 if received is None else received
    return Feedback(id=event, decision=of.id, user=of.user, item=item, type=kind, value=value, time=at, received=at)


def interaction(
    user_id: str, item: str, kind: str = "purchase", *, event: str = "e", received: int, value: float = 1.0
) -> Feedback:
    """An event that belongs to no decision."""
    user = KEYRING.user_key(user_id)
    return Feedback(
        id=event,
        decision=KEYRING.no_decision_id(user, event),
        user=user,
        item=item,
        type=kind,
        value=value,
        time=received,
        received=received,
        session="visit",
    )
