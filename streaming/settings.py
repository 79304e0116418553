"""Settings of the log, the lake, the rewards and the bandit."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_strict = ConfigDict(extra="forbid", frozen=True)

VIEW = "view"  # the event type that says that a shown item was seen
Worth = Annotated[float, Field(ge=-1e6, le=1e6)]  # finite, whatever value it is multiplied with
Share = Annotated[float, Field(ge=0, le=1)]


class KafkaSettings(BaseModel):
    """The event log. Without a bootstrap address the stack starts an embedded broker."""

    model_config = _strict

    bootstrap: str | None = Field(default=None, description="host:port of your cluster; empty: embedded, memory only.")
    events_topic: str = Field(default="events", description="Decisions and feedback, keyed by user.")
    catalogue_topic: str = Field(default="catalogue", description="Items put and deleted.")
    deadletter_topic: str = Field(default="deadletter", description="Events that could not be processed, and why.")
    partitions: int = Field(
        default=2,
        ge=1,
        le=256,
        description="Partitions of the events topic when MatchLoop creates it. Part of the state: never change it.",
    )
    replication: int = Field(default=1, ge=1, description="Replicas of the topics when MatchLoop creates them.")
    tick_seconds: float = Field(
        default=5.0, gt=0, description="A quiet partition gets a tick this often, so that windows close."
    )


class LakeSettings(BaseModel):
    """The sink: the log as Parquet files."""

    model_config = _strict

    flush_seconds: float = Field(default=5.0, gt=0, description="A file is written this often while events come.")
    flush_events: int = Field(default=20_000, ge=1, description="... and whenever this many events wait.")


class UpdaterSettings(BaseModel):
    """The updaters: what folds the log into the bandit's state."""

    model_config = _strict

    processes: int = Field(
        default=1, ge=1, le=64, description="Updaters that the stack starts; they share the partitions of the log."
    )
    session_seconds: float = Field(
        default=3.0, ge=0.5, description="An updater that was silent for so long has its partitions taken over."
    )


class Aggregation(StrEnum):
    """How several events on one shown item become one reward."""

    SUM = "sum"
    MAX = "max"
    LATEST = "latest"


class RewardSettings(BaseModel):
    """What an event is worth, and how long it may take."""

    model_config = _strict

    weights: dict[str, Worth] = Field(
        default={VIEW: 0.0, "click": 1.0, "like": 1.0, "watch": 1.0, "purchase": 1.0, "dislike": 0.0},
        description="Reward of one event of the type, multiplied with the event's value. Other types are refused. "
        "'view' says that an item was seen, and counts while nothing else has come.",
    )
    thresholds: dict[str, Worth] = Field(
        default={},
        description="Of these types a value from here on is worth the whole weight, a smaller one 0: "
        "{watch = 30} for a watch of 30 seconds.",
    )
    aggregation: Aggregation = Field(
        default=Aggregation.MAX, description="Several events on one shown item: sum, max or latest."
    )
    minimum: Worth = Field(default=0.0, description="Rewards are cut to this range ...")
    maximum: Worth = Field(default=1.0, description="... before they are learnt from.")
    silence: Worth = Field(
        default=0.0, description="Reward of an item that was shown and got no event within the window."
    )
    window_seconds: float = Field(
        default=1800.0, gt=0, description="Feedback counts this long after the decision; later it is 'late'."
    )
    positive: float = Field(
        default=0.5, description="A reward from here on is a positive interaction: what models learn to predict."
    )

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.minimum >= self.maximum:
            raise ValueError(f"rewards.minimum {self.minimum} must be below rewards.maximum {self.maximum}")
        if not self.minimum <= self.silence <= self.maximum:
            raise ValueError(f"rewards.silence {self.silence} lies outside [{self.minimum}, {self.maximum}]")
        if unknown := self.thresholds.keys() - self.weights.keys():
            raise ValueError(f"rewards.thresholds names {sorted(unknown)}, which rewards.weights does not declare")
        return self


class ScoreForm(StrEnum):
    """How sums become an estimate."""

    PUBLISHED = "published"  # Online Matching, Eqs. 7-9
    RESIDUAL = "residual"  # offline prediction + item residual + edge residual


class BanditSettings(BaseModel):
    """Diag-LinUCB: estimates and exploration."""

    model_config = _strict

    form: ScoreForm = Field(
        default=ScoreForm.RESIDUAL, description="published (the paper's) or residual (see infra/decisions)."
    )
    alpha: float = Field(
        default=1.0,
        ge=0,
        description="Width of the bonus; for the residual form in units of the reward's standard deviation. "
        "0: nothing is explored.",
    )
    edge_prior: float = Field(
        default=3.0, gt=0, description="Pseudo-trials of an edge in the bonus; in the published form in the mean, too."
    )
    item_prior: float = Field(
        default=3.0,
        gt=0,
        description="Pseudo-trials behind the level of an item: at least in the mean, exactly in the bonus.",
    )
    cluster_prior: float = Field(default=10.0, gt=0, description="Pseudo-trials behind the level of a user cluster.")
    memory_days: float | None = Field(
        default=None,
        ge=1,
        description="What a trial counts fades to 1/e in so many days; empty: never. Holds from the next train or "
        "retrain on. Retrain before 50 times as long has passed: from then on nothing fades.",
    )
    explore_top_k: int = Field(
        default=20, ge=1, description="Exploration draws uniformly among this many items of the highest upper bound."
    )
    explore_share: Share = Field(
        default=0.1,
        description="Chance that a slot explores. Which share of users meets exploration at all is up to the variants.",
    )
    explore_share_by_surface: dict[str, Share] = Field(
        default={}, description="... where a surface has its own: {checkout = 0} for none there."
    )
    graduation_trials: int = Field(
        default=1000, ge=0, description="An item with so many resolved trials is not explored any more. 0: never so."
    )
    item_centric_sigmas: float = Field(
        default=2.0,
        ge=0,
        description="An item is not explored for a user who is expected to like it less than its average, "
        "by so many standard deviations of what is known of that. 0: for everybody.",
    )

    def share_on(self, surface: str) -> float:
        """The chance that a slot explores there."""
        return self.explore_share_by_surface.get(surface, self.explore_share)
