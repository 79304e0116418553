"""What is to be tried on the log: a release with other settings, or a baseline. A small TOML file says which.

name = "more exploration"
release = "0123456789abcdef"     # left out: the release that each decision was served by
mode = "explore"                 # off, explore or greedy
baseline = "popularity"          # frozen or popularity, in place of a mode
[bandit]                         # settings as in matchloop.toml: alpha, explore_share, form, ...
explore_share = 0.2
[serving]                        # what a variant of an experiment may set: sources, ranker, category_boosts, ...
list_candidates = 0
[rules]                          # items and categories that are never shown
exclude_categories = ["horror"]
"""

import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from feature_store.contracts.errors import InvalidInput
from online_serving.pipeline.request import Filter
from online_serving.settings import ServingSettings
from online_serving.treatments import SERVING, refuse_contradiction
from streaming.settings import BanditMode, BanditSettings

_READ = sorted(SERVING - {"slate_size"})  # the size of a logged slate is what was asked for
_EVERYTHING = {"candidates": 1_000_000, "cluster_candidates": 0, "list_candidates": 0, "fresh_candidates": 0}
_Settings = TypeVar("_Settings", bound=BaseModel)


class Baseline(StrEnum):
    """What to compare with first."""

    FROZEN = "frozen"  # the release alone
    POPULARITY = "popularity"  # the items that have earned most in the log so far


class Rules(BaseModel):
    """What is never shown, beside what requests say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    exclude_items: tuple[str, ...] = Field(default=(), description="Ids of items.")
    exclude_categories: tuple[str, ...] = Field(default=(), description="Categories, whole.")

    @property
    def filter(self) -> Filter:
        """The same as a rule of a request."""
        return Filter(self.exclude_items, self.exclude_categories)


class CandidateFile(BaseModel):
    """What the file holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(default="candidate", min_length=1, description="Name in reports.")
    release: str | None = Field(default=None, description="Id of a release; empty: the one that served.")
    mode: BanditMode | None = Field(default=None, description="off, explore or greedy; empty: as in the settings.")
    baseline: Baseline | None = Field(default=None, description="frozen or popularity.")
    bandit: dict[str, Any] = Field(default={}, description="Overrides of [bandit].")
    serving: dict[str, Any] = Field(default={}, description="Overrides of [serving], as far as requests read it.")
    rules: Rules = Rules()

    @model_validator(mode="after")
    def _one_policy(self) -> Self:
        if self.mode is not None and self.baseline is not None:
            raise ValueError(f"mode {self.mode} and baseline {self.baseline} exclude each other")
        if other := sorted(set(self.serving) - set(_READ)):
            raise ValueError(f"serving.{other[0]} is not read by a request: there are {', '.join(_READ)}")
        return self


class Candidate(NamedTuple):
    """A policy to replay requests through."""

    name: str
    release: str | None  # None: the one that each decision was served by
    bandit: BanditSettings
    serving: ServingSettings
    exclude: Filter
    by_popularity: bool


def as_served(name: str, bandit: BanditSettings, serving: ServingSettings) -> Candidate:
    """The policy that made the log, if the settings are still those that it was made with."""
    return Candidate(name, None, bandit, serving, Filter(), by_popularity=False)


def candidate(named: str, bandit: BanditSettings, serving: ServingSettings) -> Candidate:
    """Reads a candidate: the path of a file, or the id of a release under the present settings.

    Raises InvalidInput for a file that cannot be read or says what has no meaning.
    """
    path = Path(named)
    if not path.suffix and not path.exists():
        return _made(CandidateFile(name=f"release {named}", release=named), bandit, serving, named)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(f"The candidate {path} cannot be read: {error}.") from None
    return _made(_checked(CandidateFile, {"name": path.stem, **content}, named), bandit, serving, named)


def _made(file: CandidateFile, bandit: BanditSettings, serving: ServingSettings, source: str) -> Candidate:
    popularity = file.baseline is Baseline.POPULARITY
    mode = BanditMode.OFF if file.baseline is not None else file.mode
    learnt = bandit.model_dump() | ({} if mode is None else {"mode": mode})
    sources = {**serving.model_dump(), **(_EVERYTHING if popularity else {}), **file.serving}
    tried = _checked(BanditSettings, {**learnt, **file.bandit}, source)
    served = _checked(ServingSettings, sources, source)
    refuse_contradiction(f"The candidate {source}", served, tried)
    return Candidate(
        name=file.name,
        release=file.release,
        bandit=tried,
        serving=served,
        exclude=file.rules.filter,
        by_popularity=popularity,
    )


def _checked(kind: type[_Settings], values: dict[str, Any], source: str) -> _Settings:
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "the candidate"
        reason = str(first["msg"]).removeprefix("Value error, ")
        raise InvalidInput(f"The candidate {source}: {name} cannot be {first['input']!r}: {reason}.") from None
