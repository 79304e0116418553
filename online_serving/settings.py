"""Settings of the HTTP API and the request pipeline."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

RATE = r"^[1-9][0-9]{0,8}/(second|minute|hour|day)$"
Boost = Annotated[float, Field(gt=0, le=100)]
_HOUR_MS = 3_600_000


def _in_ms(value: Any) -> Any:
    """TOML has times of its own, and JSON no whole numbers."""
    if isinstance(value, datetime) and value.tzinfo:
        return int(value.timestamp() * 1000)
    return int(value) if isinstance(value, float) and value.is_integer() else value


Time = Annotated[int, Field(ge=0, lt=2**47), BeforeValidator(_in_ms)]  # ms since the epoch


class Boosting(BaseModel):
    """What estimates are multiplied by, for a while: between two times (ms since the epoch), and less and less."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    factor: Boost = Field(description="Above 1 items come earlier, below 1 later.")
    since: Time | None = Field(default=None, description="Not before; ms since the epoch.")
    until: Time | None = Field(default=None, description="Not from then on; ms since the epoch.")
    half_life_hours: float | None = Field(
        default=None, gt=0, le=1e6, description="Its distance from 1 halves in this time, from `since` on."
    )

    @model_validator(mode="after")
    def _has_a_beginning(self) -> Self:
        if self.half_life_hours is not None and self.since is None:
            raise ValueError("half_life_hours says how fast it fades, and since is missing: from when on?")
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise ValueError(f"since {self.since} is not before until {self.until}")
        return self

    def at(self, time: int | None) -> float:
        """The factor at a time (ms since the epoch), None: as it is said."""
        if time is None:
            return self.factor
        if (self.since is not None and time < self.since) or (self.until is not None and time >= self.until):
            return 1.0
        if self.half_life_hours is None or self.since is None:
            return self.factor
        return float(1.0 + (self.factor - 1.0) * 0.5 ** ((time - self.since) / _HOUR_MS / self.half_life_hours))


def _number_is_factor(value: Any) -> Any:
    return {"factor": value} if isinstance(value, int | float) else value


Boosted = Annotated[Boosting, BeforeValidator(_number_is_factor, json_schema_input_type=Boosting | Boost)]


MAX_CAPS = 5
MAX_PINS = 20
Cap = Annotated[int, Field(ge=1, le=500)]
Place = Annotated[int, Field(ge=1, le=500)]
Diversity = Annotated[float, Field(ge=0, le=1)]


def contested(pins: Mapping[str, int]) -> str | None:
    """What is wrong with pins, items and their places: two of them want the same place. None: nothing."""
    by_place: dict[int, str] = {}
    for item, place in pins.items():
        if by_place.setdefault(place, item) != item:
            return f"place {place} is that of {by_place[place]!r} and of {item!r}: give each its own"
    return None


class Surface(BaseModel):
    """What requests for a surface mean where they say nothing themselves."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slate_size: int | None = Field(default=None, ge=1, le=500)
    filter: str | None = None  # goes with the request's own
    boosts: dict[str, Boosted] = {}  # the request's own go before those of the same expression
    caps: dict[str, Cap] = Field(default={}, max_length=MAX_CAPS)  # the request's own go before those of the same name
    pins: dict[str, Place] = Field(default={}, max_length=MAX_PINS)  # the request's own take items and places from them
    diversity: Diversity = 0.0
    repeat_days: int | None = Field(default=None, ge=0)  # of all items, whatever their categories

    @model_validator(mode="after")
    def _places_are_distinct(self) -> Self:
        if problem := contested(self.pins):
            raise ValueError(f"pins: {problem}")
        return self

    @model_validator(mode="after")
    def _readable(self) -> Self:
        from online_serving.expressions import BrokenExpression, parse

        for expression in (*self.boosts, *([] if self.filter is None else [self.filter])):
            try:
                parse(expression)
            except BrokenExpression as error:
                raise ValueError(f"{expression!r} is no filter expression: {error}") from None
        return self


class ServingSettings(BaseModel):
    """How requests are answered."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(default="127.0.0.1", description="Address to listen on. Off loopback a key is required.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port; 0 or a busy one: the stack chooses a free one.")
    workers: int = Field(
        default=1,
        ge=1,
        le=64,
        description="API processes that the stack starts; they share the port. "
        "Each joins it when its release is loaded.",
    )
    api_key: SecretStr | None = Field(
        default=None, description="A key for everything. Clients send it as `Authorization: Bearer KEY`."
    )
    keys_file: Path | None = Field(
        default=None,
        description="Further keys, each for some of it: see `matchloop keys`; empty: <home>/keys.json, if it is there. "
        "A process sees within a second that it has changed.",
    )
    rate_limit: str | None = Field(
        default=None,
        pattern=RATE,
        description="Requests that a process takes with one key, such as 100/second; more are answered 429. Keys may "
        "have limits of their own.",
    )
    cors_origins: tuple[Annotated[str, Field(pattern=r"^(\*|https?://[^/]+)$")], ...] = Field(
        default=(),
        description="Origins whose pages may call the API from a browser, such as https://shop.example: with a key for "
        "recommend and feedback alone, since everybody can read it there.",
    )
    request_seconds: float = Field(
        default=10.0,
        gt=0,
        description="Time for a client to send the head of a request, and as long again for its body; then 408.",
    )
    keep_alive_seconds: int = Field(
        default=5, ge=1, description="Time that a connection may idle between requests; longer than your proxy's."
    )
    max_in_flight: int = Field(
        default=512, ge=1, description="Requests that one process works on; more are answered 503 with Retry-After."
    )
    docs: bool = Field(
        default=True,
        description="Whether /docs, /redoc and /openapi.json are served; a browser asks for the api_key as password.",
    )
    dashboard: bool = Field(
        default=True,
        description="Whether /dashboard shows what serves, how much, how fast and how it is: what `status` and the "
        "metrics know. A browser asks for the key of an admin as password.",
    )
    dashboard_links: dict[str, Annotated[str, Field(pattern=r"^https?://")]] = Field(
        default={},
        description="Where else the dashboard leads: {Grafana = 'https://grafana.example/d/matchloop'}. One called "
        "MLflow takes the place of mlflow.tracking_uri, where browsers know it by another name.",
    )
    playground: bool = Field(
        default=False,
        description="Whether / is a page on which people try what the API recommends, and see it learn: from real "
        "feedback, so keep it to those who may give it. A browser asks for the api_key as password.",
    )
    playground_users: tuple[str, ...] = Field(
        default=(), description="User ids that the playground offers; any other can be typed in."
    )
    drain_seconds: float = Field(
        default=2.0,
        ge=0,
        le=300,
        description="A process that is told to stop goes on answering for so long while /readyz says no. "
        "Behind a load balancer: longer than it takes to notice.",
    )
    slate_size: int = Field(
        default=10, ge=1, le=500, description="Items in an answer unless the request says otherwise."
    )
    max_slate_size: int = Field(default=100, ge=1, le=500, description="Largest slate a request may ask for.")
    candidates: int = Field(default=200, ge=1, description="Candidates taken from the index per request.")
    cluster_candidates: int = Field(
        default=200, ge=0, description="Candidates taken from the user's clusters per request."
    )
    list_candidates: int = Field(
        default=200, ge=0, description="Candidates taken per request from the item lists of what the user liked."
    )
    fresh_candidates: int = Field(
        default=50, ge=0, description="Newest catalogue items added to the candidates while they have few impressions."
    )
    ranker: bool = Field(
        default=True,
        description="Whether candidates are ordered by the ranker; without it by their nearness to the user, which no "
        "bandit can work on: only with bandit.mode = off.",
    )
    excluded_categories: tuple[str, ...] = Field(default=(), description="Nothing of these is ever recommended.")
    category_boosts: dict[str, Boost] = Field(
        default={}, description="Estimates of items of these categories are multiplied by so much: {drama = 1.2}."
    )
    surfaces: dict[str, Surface] = Field(
        default={},
        description="What requests for a surface mean: {mail = {slate_size = 3, filter = 'price < 50', "
        "boosts = {'has(label)' = 1.5}}}, and caps, pins and diversity as requests have them. What a request says "
        "itself goes before; its filter goes with it.",
    )
    decision_deadline_ms: float = Field(
        default=150.0,
        gt=0,
        description="A decision not acknowledged by the log in this time is answered without exploration, and nothing "
        "is learnt from it. Well above what your cluster's slowest acknowledgements take.",
    )
    feedback_deadline_ms: float = Field(
        default=2000.0, gt=0, description="Feedback not acknowledged in this time is answered 503: send it again."
    )
    candidate_log_share: float = Field(
        default=0.01, ge=0, le=1, description="Share of decisions logged with their whole candidate list."
    )
    shadow_cpu: float = Field(
        default=0.05,
        gt=0,
        le=1,
        description="Share of one core that a process gives to a release that answers unseen: see `release shadow`.",
    )
    repeat_days: int | None = Field(
        default=None,
        ge=0,
        description="So many days (of UTC) after it was shown to a user an item may be again: 1 is the next day, 0 at "
        "once; empty: never, as far as redis.shown_kept reaches.",
    )
    category_repeat_days: dict[str, Annotated[int, Field(ge=0)]] = Field(
        default={}, description="The same for items of these categories; of several the longest counts."
    )

    @property
    def remembers_shown(self) -> bool:
        """Whether any rule asks what a user was shown before."""
        surfaces = (surface.repeat_days for surface in self.surfaces.values())
        return self.repeat_days != 0 or any(self.category_repeat_days.values()) or any(surfaces)

    @model_validator(mode="after")
    def _surfaces_fit(self) -> Self:
        for name, surface in self.surfaces.items():
            if (surface.slate_size or 0) > self.max_slate_size:
                raise ValueError(
                    f"serving.surfaces.{name}.slate_size {surface.slate_size} is more than serving.max_slate_size "
                    f"{self.max_slate_size}. Ask for less, or raise the limit"
                )
        return self

    @model_validator(mode="after")
    def _key_off_loopback(self) -> Self:
        without = self.api_key is None and self.keys_file is None
        if without and self.host not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError(
                f"serving.host {self.host!r} is not loopback, and serving.api_key and serving.keys_file are empty. "
                "Set MATCHLOOP_SERVING_API_KEY, or listen on 127.0.0.1 behind your own gateway"
            )
        return self
