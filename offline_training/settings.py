"""Settings of the batch engine, the tracking server and training."""

from enum import StrEnum
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_strict = ConfigDict(extra="forbid", frozen=True)


class SparkSettings(BaseModel):
    """The batch engine. What stands here counts more than spark-defaults.conf, and less than what was submitted."""

    model_config = _strict

    master: str | None = Field(
        default=None, description="Spark master URL; empty: that of spark-defaults.conf, or else local[*]."
    )
    driver_memory: str | None = Field(
        default=None, description="Heap of the driver; empty: that of spark-defaults.conf, or else 2g."
    )
    shuffle_partitions: int | None = Field(
        default=None,
        ge=1,
        description="Partitions after a shuffle, a few per core; empty: as in spark-defaults.conf, or else 4 on one "
        "machine and as many as Spark chooses on a cluster.",
    )
    properties: dict[str, str] = Field(
        default={}, description="Further Spark properties, such as spark.executor.memory; they override those above."
    )


class MlflowSettings(BaseModel):
    """Tracking and registry."""

    model_config = _strict

    tracking_uri: str | None = Field(
        default=None,
        description="Your MLflow server; empty: an embedded one on SQLite. MLFLOW_TRACKING_URI is read too.",
    )
    experiment: str = Field(default="matchloop", description="MLflow experiment for training runs and reports.")
    model: str = Field(
        default="matchloop",
        description="Registered model; `champion` is what serves, `previous` what did, `challenger` what the gate held "
        "back.",
    )


class ReleaseSettings(BaseModel):
    """Releases on disk."""

    model_config = _strict

    kept: int = Field(
        default=5,
        ge=1,
        description="Newest releases that stay when `gc` runs, as it does after each promotion. What serves, its "
        "parent, and what served before stay beside them.",
    )


class Loss(StrEnum):
    """What the two-tower model minimises."""

    AUTO = "auto"  # the full softmax for catalogues that it is quick for, else the corrected one
    FULL_SOFTMAX = "full_softmax"
    IN_BATCH = "in_batch"
    CORRECTED_IN_BATCH = "corrected_in_batch"


class Start(StrEnum):
    """What the weights of a retrain begin as."""

    SCRATCH = "scratch"
    CHAMPION = "champion"  # those of the release that serves


class TrainingSettings(BaseModel):
    """The two-stage model and the graph."""

    model_config = _strict

    seed: int = Field(default=0, description="Seed of everything random in training.")
    start: Start = Field(
        default=Start.SCRATCH,
        description="What the towers and the ranker of a retrain begin as: scratch, or the champion's weights, which "
        "takes `champion_epochs` instead of `epochs` and keeps the form of the champion's ranker.",
    )
    champion_epochs: int = Field(
        default=2, ge=1, description="Passes of the two-tower model that begins as the champion's."
    )
    positive_value: dict[str, float] = Field(
        default={"rating": 4.0},
        description="Value from which an interaction is positive, by type; other types are positive above 0.",
    )
    dimensions: int = Field(default=64, ge=4, description="Length of user and item vectors.")
    history_length: int = Field(default=50, ge=1, description="Events of history that the user tower reads.")
    layers: int = Field(default=2, ge=1, description="Attention blocks of the user tower.")
    heads: int = Field(default=2, ge=1, description="Attention heads; twice their number divides `dimensions`.")
    horizon: int = Field(
        default=20, ge=0, description="How many events beyond the next one the towers learn to predict."
    )
    drift: bool = Field(
        default=True,
        description="Whether tastes drift over time: the towers then start from the popularity of items in the last "
        "`recent_days`, and are trained on the newest events last.",
    )
    dropout: float = Field(default=0.2, ge=0, lt=1, description="Dropout of the user tower.")
    epochs: int = Field(default=8, ge=1, description="Passes of the two-tower model over the training set.")
    batch_size: int = Field(default=6_000, ge=2, description="Events in a batch of the two-tower model.")
    learning_rate: float = Field(default=1e-3, gt=0, description="Adam's largest step size.")
    temperature: float = Field(default=0.05, gt=0, description="Softmax temperature of the two-tower loss.")
    loss: Loss = Field(
        default=Loss.AUTO,
        description="auto, full_softmax, in_batch (logQ from the stream) or corrected_in_batch; auto: full_softmax up "
        "to 50,000 items, then corrected_in_batch.",
    )
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = Field(
        default="32-true", description="Arithmetic of the two-tower training; bf16-mixed is quicker where supported."
    )
    accelerator: Literal["auto", "cpu", "gpu"] = Field(
        default="auto", description="Device that the two-tower model is trained on; auto: a GPU if there is one."
    )
    ranker_epochs: int = Field(default=3, ge=1, description="Passes of the ranker over its training set.")
    ranker_negatives: int = Field(
        default=50, ge=1, description="Sampled candidates per positive in the ranker's training set."
    )
    recent_days: float = Field(
        default=0.0,
        ge=0,
        description="Days that count as recent, for training on new examples and for the popularity baseline; 0: "
        "chosen from the data, 14 unless other ones surely tell better what is wanted next.",
    )
    clusters: int | None = Field(
        default=None,
        ge=1,
        description="User clusters C; empty: enough for 4 edges per item on average. At most a tenth of the users.",
    )
    edges_per_cluster: int = Field(
        default=100, ge=1, description="Nearest items W of each cluster; those that join it come on top."
    )
    active_clusters: int = Field(default=5, ge=1, description="Clusters K in a user's context.")
    context_temperature: float = Field(
        default=0.1, gt=0, description="tau' of the context softmax (Online Matching, Eq. 10)."
    )
    list_length: int = Field(
        default=200,
        ge=0,
        description="Maximum length of item-to-item lists; training cuts them where doubling adds less than 0.01 to "
        "the hit rate. 0 disables lists.",
    )
    prior_discount: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Weight of a trial logged before `train` in the first base, times 1 / propensity (at most 10); "
        "0: the bandit starts from nothing.",
    )
    ensemble_omega: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Weight of what came online in the mean of a trial that a new release begins with (V1D3); the rest "
        "is what the release expects of it.",
    )
    ensemble_keep: float = Field(
        default=0.25, ge=0, le=1, description="Share kappa of the online trials that is kept at a change point."
    )

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.dimensions % (2 * self.heads):
            raise ValueError(
                f"training.dimensions is {self.dimensions} and training.heads {self.heads}: twice the heads must "
                "divide the dimensions"
            )
        return self
