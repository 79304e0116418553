"""Settings of the log, the lake, the rewards and the bandit."""

from enum import StrEnum
from typing import Annotated, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from feature_store.object_store import URL

_strict = ConfigDict(extra="forbid", frozen=True)

# Properties of the producer that are no matter of taste.
_OURS = {
    *("bootstrap.servers", "acks", "request.required.acks", "enable.idempotence", "partitioner"),
    *("max.in.flight", "max.in.flight.requests.per.connection", "delivery.timeout.ms", "message.timeout.ms"),
}

VIEW = "view"  # the event type that says that a shown item was seen
Worth = Annotated[float, Field(ge=-1e6, le=1e6)]  # finite, whatever value it is multiplied with
Share = Annotated[float, Field(ge=0, le=1)]


class Topics(NamedTuple):
    """The topics of an installation by their names in Kafka."""

    events: str
    catalogue: str
    deadletter: str


class KafkaSettings(BaseModel):
    """The event log. Without a bootstrap address the stack starts an embedded broker."""

    model_config = _strict

    bootstrap: str | None = Field(
        default=None, description="host:port of your cluster; empty: an embedded broker that keeps its log in memory."
    )
    topic_prefix: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9._-]{0,100}$",
        description="Before the name of every topic, so that several installations can share a cluster: shop-.",
    )
    events_topic: str = Field(default="events", description="Decisions and feedback, keyed by user.")
    catalogue_topic: str = Field(default="catalogue", description="Items put and deleted.")
    deadletter_topic: str = Field(default="deadletter", description="Events that could not be processed, and why.")
    partitions: int = Field(
        default=2,
        ge=1,
        le=256,
        description="Partitions of the events topic when MatchLoop creates it. To change it: stop the stack, add "
        "partitions in Kafka, set it here, start and retrain.",
    )
    replication: int = Field(
        default=1,
        ge=1,
        description="Replicas of the topics when MatchLoop creates them; all but one must have a record "
        "(min.insync.replicas). 3 on a cluster of three or more.",
    )
    retention_days: float = Field(
        default=7.0,
        gt=0,
        description="How long the events topic is kept when MatchLoop creates it. The lake keeps events for longer.",
    )
    deadletter_days: float = Field(
        default=30.0, gt=0, description="How long dead letters are kept when MatchLoop creates their topic."
    )
    create_topics: bool = Field(
        default=True,
        description="Create topics that are missing; false: nothing starts without them, and what to create is said.",
    )
    properties: dict[str, str] = Field(
        default={},
        description="Properties of librdkafka, for every client as far as it has them: "
        '{"security.protocol" = "SASL_SSL", "sasl.mechanism" = "SCRAM-SHA-512", "sasl.username" = "matchloop", '
        '"sasl.password" = "file:/run/secrets/kafka", "ssl.ca.location" = "/etc/ca.pem"}. '
        "With OAUTHBEARER: sasl.oauthbearer.method oidc, token.endpoint.url, client.id, client.secret and scope. "
        "A value file:PATH is what the file holds; passwords and secrets must be in files.",
    )
    tick_seconds: float = Field(
        default=5.0,
        gt=0,
        description="A tick is appended to a quiet partition this often, so that feedback windows close.",
    )

    @model_validator(mode="after")
    def _properties(self) -> Self:
        for name, value in self.properties.items():
            if name in _OURS:
                raise ValueError(f"kafka.properties sets {name}, on which exactly-once rests. Leave it out.")
            if name.endswith(("password", "secret")) and not value.startswith("file:"):
                raise ValueError(f"kafka.properties: write {name} into a file, and file:PATH here.")
        mechanism = self.properties.get("sasl.mechanism", self.properties.get("sasl.mechanisms"))
        if mechanism == "OAUTHBEARER" and self.properties.get("sasl.oauthbearer.method") != "oidc":
            raise ValueError(
                'kafka.properties: with OAUTHBEARER set "sasl.oauthbearer.method" = "oidc", and token.endpoint.url, '
                "client.id and client.secret beside it."
            )
        return self

    @property
    def topics(self) -> Topics:
        """The topics by their whole names."""
        names = self.events_topic, self.catalogue_topic, self.deadletter_topic
        return Topics(*(self.topic_prefix + name for name in names))


class LakeSettings(BaseModel):
    """The lake, and the sink that writes the log there as Parquet files."""

    model_config = _strict

    url: str | None = Field(
        default=None,
        pattern=URL.pattern,
        description="s3://BUCKET/FOLDER: the lake is in an object store. Needs the extra s3, and credentials where "
        "AWS' tools look for them. Empty: in <home>/lake.",
    )
    endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="Address of an object store that is not AWS', http://minio:9000 say; empty: AWS, or what "
        "AWS_ENDPOINT_URL names.",
    )
    region: str | None = Field(default=None, description="Region of the object store; empty: as AWS' tools find it.")

    flush_seconds: float = Field(
        default=60.0,
        gt=0,
        description="While events arrive, a file is written this often; at once where a command waits for the lake.",
    )
    flush_events: int = Field(
        default=20_000, ge=1, description="A file is also written whenever this many events are waiting."
    )
    file_mb: int = Field(
        default=64, ge=1, description="Size from which a file is left as it is. Smaller neighbours become one file."
    )
    compact_hours: float = Field(
        default=1.0, gt=0, description="The sink has small files replaced by larger ones this often."
    )
    keep_days: float | None = Field(
        default=None,
        ge=1,
        description="Events older than this are removed, once no namespace needs them; empty: all are kept. "
        "Models are trained on what is kept.",
    )
    forget_within_days: float = Field(
        default=30.0,
        gt=0,
        description="How long after an erasure lake and namespaces may still lead to the user. `retrain` and "
        "`users forget` rewrite them; `doctor` reports an erasure that is overdue.",
    )


class UpdaterSettings(BaseModel):
    """The updaters: what folds the log into the bandit's state."""

    model_config = _strict

    processes: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Updater processes that the stack starts; they share the partitions of the log.",
    )
    session_seconds: float = Field(
        default=3.0,
        ge=0.5,
        description="After this long without a heartbeat, an updater's partitions are taken over by the others.",
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
        description="Reward of one event by type, multiplied by the event's value. Other types are refused. "
        "A 'view' says that the item was seen; any other event on the item replaces it.",
    )
    thresholds: dict[str, Worth] = Field(
        default={},
        description="For these types, a value at or above the threshold earns the full weight, a smaller one nothing: "
        "{watch = 30} counts a watch of at least 30 seconds.",
    )
    aggregation: Aggregation = Field(
        default=Aggregation.MAX, description="How several events on one shown item are combined: sum, max or latest."
    )
    minimum: Worth = Field(default=0.0, description="Rewards below this are raised to it.")
    maximum: Worth = Field(default=1.0, description="Rewards above this are lowered to it.")
    silence: Worth = Field(default=0.0, description="Reward of a shown item without any event within the window.")
    window_seconds: float = Field(
        default=1800.0, gt=0, description="How long after a decision its feedback counts; anything later is 'late'."
    )
    positive: float = Field(
        default=0.5,
        description="Rewards at or above this are positive interactions, which the models learn to predict.",
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


class BanditMode(StrEnum):
    """What the bandit does with a request."""

    OFF = "off"  # the offline model alone decides; nothing is learnt from its decisions
    EXPLORE = "explore"  # Online Matching: estimates plus exploration
    GREEDY = "greedy"  # the bandit's estimates without exploration


class ScoreForm(StrEnum):
    """How sums become an estimate."""

    PUBLISHED = "published"  # Online Matching, Eqs. 7-9
    RATIO = "ratio"  # offline prediction, times what was observed over what was expected, level by level


class BanditSettings(BaseModel):
    """Diag-LinUCB: estimates and exploration."""

    model_config = _strict

    mode: BanditMode = Field(
        default=BanditMode.EXPLORE,
        description="off (the offline model alone decides, and nothing is learnt of it), explore or greedy.",
    )
    form: ScoreForm = Field(
        default=ScoreForm.RATIO, description="published (the paper's) or ratio (see infra/decisions)."
    )
    alpha: float = Field(
        default=1.0,
        ge=0,
        description="Width of the exploration bonus; for the ratio form in standard deviations of the estimate. "
        "0 disables exploration.",
    )
    new_item_quantile: float = Field(
        default=0.8,
        gt=0,
        lt=1,
        description="An item that training did not know is estimated at this quantile of what it may earn, given what "
        "it earned so far, if that is above the mean: good ones are found sooner. 0.5: at the mean.",
    )
    edge_prior: float = Field(
        default=3.0,
        gt=0,
        description="What weighs as much as an edge's own trials: trials in the published form; in the bonus of the "
        "ratio form, rewards.",
    )
    fresh_trials: float = Field(
        default=3.0,
        gt=0,
        description="A new item that was served fewer times than this is fresh: a candidate for everybody.",
    )
    memory_days: float | None = Field(
        default=None,
        ge=1,
        description="Days in which the weight of a trial decays to 1/e; empty: trials do not decay. Takes effect with "
        "the next train or retrain. Retrain at least once in 50 times this period: decay stops after that.",
    )
    explore_top_k: int = Field(
        default=20,
        ge=1,
        description="Exploration draws uniformly among the items with the highest upper bounds, this many.",
    )
    explore_share: Share = Field(
        default=0.1,
        description="Chance that a slot explores.",
    )
    explore_share_by_surface: dict[str, Share] = Field(
        default={}, description="Overrides by surface: {checkout = 0} disables exploration there."
    )
    graduation_trials: int = Field(
        default=1000,
        ge=0,
        description="An item with this many resolved trials is no longer explored. 0 disables graduation.",
    )
    item_centric_sigmas: float = Field(
        default=2.0,
        ge=0,
        description="An item is not explored for a user whose expected reward is below the item's average by this many "
        "standard deviations of that difference. 0: items are explored for all users.",
    )

    def share_on(self, surface: str) -> float:
        """The chance that a slot explores there."""
        return self.explore_share_by_surface.get(surface, self.explore_share)
