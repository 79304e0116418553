"""What a simulation is asked to do, and what it found."""

from dataclasses import dataclass

import msgspec

from feature_store.contracts.errors import InvalidInput
from offline_training.simulation.freshness import Delays


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationSettings:
    """How much traffic, and where it goes."""

    url: str
    visits: int  # stop after this many, or when nobody has anything left to like
    slate_size: int = 10
    surface: str = "home"
    concurrency: int = 8  # visits at the same time; each user's visits follow one another
    visits_per_second: float | None = None  # pace; None: as fast as the answers come
    arrivals_until: float = 0.6  # new items enter evenly over this fraction of the visits
    seed: int = 0
    api_key: str | None = None

    def __post_init__(self) -> None:
        if self.visits < 1 or self.concurrency < 1 or self.slate_size < 1:
            raise InvalidInput(
                f"A simulation needs at least 1 visit, 1 at a time, with 1 item; found {self.visits} visits, "
                f"{self.concurrency} at a time, {self.slate_size} items."
            )


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """One answered request and what the user thought of it."""

    user: str
    decision: str
    variant: str | None
    started: float  # seconds since the simulation began
    latency_ms: float  # of the recommendation
    items: list[str]
    rewards: list[float]
    logged: bool  # whether the API could log the decision; if not, the lake knows nothing of it
    feedback_accepted: bool


class SimulationResult(msgspec.Struct, kw_only=True):
    """What happened, as the visitors saw it. Failures are counted by kind, with one example each."""

    seconds: float
    visits: list[Visit]
    users: int
    users_satisfied: int  # nothing left to like
    users_unserved: int  # got an empty slate and left
    rewards_possible: int
    errors: dict[str, int]
    error_examples: dict[str, str]
    items_entered: int
    items_failed: list[str]
    items_never_shown: list[str]
    items_shown_too_early: list[str]
    feedback_to_parameters: Delays
    feedback_to_answer: Delays
    item_to_servable: Delays
    item_to_impression: Delays

    @property
    def request_ms(self) -> Delays:
        """Delays of the recommendations that were answered."""
        return Delays(samples_ms=[visit.latency_ms for visit in self.visits])
