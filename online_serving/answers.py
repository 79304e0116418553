"""What HTTP requests are answered, field by field."""

from typing import Any

from pydantic import BaseModel, Field

from online_serving.answer_paths import AnswerPath
from online_serving.pipeline.candidates import SOURCE_NAMES
from online_serving.schemas import MS


class LevelsOfEstimate(BaseModel):
    """How the estimate comes about. Each level has what is before it in it; the last one and the optimism are the
    mean."""

    group: float = Field(description="What items earn that are predicted like this one.")
    item: float = Field(description="With what the item itself has earned of everybody.")
    edges: dict[str, float] = Field(description="By cluster of the user: with what it has earned there alone.")
    deviation: float = Field(description="Standard deviation of the mean.")
    trials: float = Field(description="How often it was shown with a known outcome; what fades counts less.")
    reward: float = Field(description="What it earned in these trials.")
    optimism: float = Field(description="By how much more a new item is estimated than it is expected to earn.")
    boost: float = Field(
        description="What the estimates above were multiplied by, or divided below zero: boosts and buries, as of now."
    )


class DescribedItem(BaseModel):
    """An item, and what was asked for of it."""

    id: str
    title: str | None = None
    categories: list[str] | None = None
    attributes: dict[str, bool | int | float | str] | None = None


class BrowsingAnswer(BaseModel):
    """Items that were looked up, the best first. Nothing is learnt from them: what users do with them are events."""

    release: str
    degraded: list[str] = Field(description="Parts that did not answer in time and were done without.")
    items: list[DescribedItem]


class Explanation(BaseModel):
    """Why an item is where it is."""

    predicted: float = Field(description="The offline model's probability of a reward.")
    mean: float = Field(description="The policy's estimate of the reward.")
    bonus: float = Field(description="The policy's exploration bonus; 0: it does not explore the item.")
    clusters: dict[str, float] = Field(description="Weights of the user's clusters that the item is connected to.")
    levels: LevelsOfEstimate | None = Field(
        description="null: the item was pinned, or the log was slow, and the prediction alone decided."
    )


class RecommendedItem(DescribedItem):
    """One item of a slate."""

    position: int = Field(description="1 is the first.")
    score: float = Field(description="The policy's estimate of the reward.")
    source: str = Field(description=f"What found the item: {', '.join(SOURCE_NAMES)}; several are joined by +.")
    probability: float = Field(description="Of this item being put at this position, given the items before it.")
    explanation: Explanation | None = None


class PreviewAnswer(BaseModel):
    """A slate that nobody is shown."""

    variant: str
    release: str
    path: str = Field(description=f"How it was made, plainer the more parts fail: {', '.join(AnswerPath)}.")
    degraded: list[str] = Field(description="Parts that did not answer in time and were done without.")
    parameter_offsets: list[int] = Field(description="Per partition, the first log offset not learnt from yet.")
    items: list[RecommendedItem]
    rules: dict[str, int] | None = Field(default=None, description="With explain: items that each rule took out.")


class RecommendationAnswer(PreviewAnswer):
    """A slate."""

    decision_id: str = Field(description="Send it back with feedback.")
    logged: bool = Field(
        description="False: the log was slow: answered without exploration. Feedback on it is kept as an interaction, "
        "and teaches the bandit nothing."
    )
    next: str | None = Field(description="The cursor of the next page; null: there is no more.")


class RecommendationsAnswer(BaseModel):
    """One answer per request, in the order sent."""

    answers: list[RecommendationAnswer]


class EventStatus(BaseModel):
    """What became of one event."""

    event_id: str
    status: str = Field(description="accepted, rejected or unacknowledged.")
    reason: str | None = None
    partition: int | None = Field(default=None, description="Place in the log.")
    offset: int | None = None


class FeedbackAnswer(BaseModel):
    """One status per event, in the order sent."""

    events: list[EventStatus]


class WebhookAnswer(BaseModel):
    """What became of calls that another system makes."""

    accepted: int
    passed_over: int = Field(description="They tell nothing that is wanted here.")
    rejected: int
    reasons: list[str] = Field(description="Why calls were rejected: ten different ones at most.")


class StoredItem(BaseModel):
    """An item as stored."""

    id: str
    title: str
    categories: list[str]
    attributes: dict[str, bool | int | float | str]
    available: bool
    available_from: int | None = Field(description=f"Not shown before. {MS}")
    available_until: int | None = Field(description=f"Not shown from then on. {MS}")


class ServedItem(StoredItem):
    """An item as stored, and whether this process can recommend it."""

    servable: bool = Field(description="In the snapshot that answers requests, and available now.")


class ItemsPage(BaseModel):
    """Some items of the catalogue, in no particular order. One may come twice while the catalogue changes."""

    items: list[StoredItem]
    next: str | None = Field(description="The cursor of the next page; null: there is no more.")


class HeldUser(BaseModel):
    """What is stored of a user. The log and the lake hold what it was made from, under a pseudonym."""

    profile: list[str] = Field(description="What is known about the user, as name=value, the way models read it.")
    profile_time: int | None = Field(description="When that became known, ms since the epoch.")
    history: int = Field(description="Interactions in the stored history.")
    history_time: int | None = Field(description="When the newest of them became known, ms since the epoch.")
    shown: int = Field(description="Items that are not to be shown to the user again.")


class StoredUser(HeldUser):
    """What is stored of the user with an id."""

    id: str


class ListedUser(HeldUser):
    """What is stored of some user."""

    key: str = Field(description="The pseudonym, as in log and lake.")


class UsersPage(BaseModel):
    """Some users, in no particular order. One may come twice while they come and go; a page may be empty."""

    users: list[ListedUser]
    next: str | None = Field(description="The cursor of the next page; null: there is no more.")


class ListedDecision(BaseModel):
    """An answered request as the lake has it. The lists run parallel to `items`, the slate in its order."""

    id: str
    user: str = Field(description="The pseudonym, as in log and lake.")
    time: int = Field(description=MS)
    surface: str
    release: str
    namespace: str
    variant: str
    learns: bool = Field(description="It trains the bandit.")
    path: str | None
    items: list[str]
    predicted: list[float]
    mean: list[float]
    bonus: list[float]
    probabilities: list[float]
    pinned: list[str] = Field(description="What the request put between them.")


class DecisionsPage(BaseModel):
    """Some decisions, partition by partition of the log, the newest of each first; a page may be empty."""

    decisions: list[ListedDecision]
    next: str | None = Field(description="The cursor of the next page; null: there is no more.")


class ItemsAnswer(BaseModel):
    """What became of a batch of items."""

    created: int
    replaced: int


class BrokenRule(BaseModel):
    """What is wrong with one field."""

    field: str
    value: Any
    rule: str


class ErrorAnswer(BaseModel):
    """Every answer of status 400 and above."""

    error: str
    message: str
    details: list[BrokenRule] | None = None


class FeedbackErrorAnswer(ErrorAnswer):
    """Events that were not taken, or not all of it."""

    events: list[EventStatus] | None = Field(default=None, description="One status per event, in the order sent.")
