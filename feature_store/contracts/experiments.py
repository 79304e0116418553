"""A/B experiments: what is compared, and who meets which variant.

The same functions assign in serving and in analysis. A user's point in a layer falls into one of BUCKETS buckets; an
experiment claims buckets of its layer and never gives one back while it runs, so that a ramp moves nobody who was in.
Which variant it is says another point, salted with the experiment's name: the users of a bucket are dealt anew by every
experiment that has it. Traffic that moves to better variants moves with the ramps: users who come in with one are dealt
by its chances, and keep what they met. Layers are independent of each other, and nobody is in two experiments of one
layer, which is therefore the group whose experiments exclude each other (Tang et al., "Overlapping Experiment
Infrastructure", KDD 2010, section 4).

An experiment whose unit is the item parts the catalogue as well, by the same weights: users of a variant are shown its
items alone, and nobody else is. What they find out about an item is then the variant's doing, which a split of the
users cannot show, as all variants fill one corpus (co-diverted tests: Su et al., "Long-Term Value of Exploration", WSDM
2024).
"""

import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from feature_store.contracts.errors import InvalidInput

BUCKETS = 1_000  # of a layer
UNASSIGNED = "default"  # what the log says of a user who is in no experiment
NAME = r"^[a-z][a-z0-9_-]{0,60}$"
_FORCED = "!"

Name = Annotated[str, Field(pattern=NAME)]
_strict = ConfigDict(extra="forbid", frozen=True)


class Variant(BaseModel):
    """One arm: what it changes of what a request reads. Nothing changed is what everybody else gets."""

    model_config = _strict

    name: Name = Field(description="Name in logs and reports.")
    weight: float = Field(default=1.0, gt=0, le=1e6, description="Share of the experiment's users, by proportion.")
    release: str | None = Field(default=None, description="Release to answer with; empty: the one that serves.")
    serving: Mapping[str, JsonValue] = Field(default={}, description="Settings of [serving] in the place of yours.")
    bandit: Mapping[str, JsonValue] = Field(default={}, description="Settings of [bandit] in the place of yours.")

    def changed(self) -> set[str]:
        """What it changes: release, serving.candidates, bandit.alpha, ..."""
        settings = {f"{part}.{name}" for part in ("serving", "bandit") for name in getattr(self, part)}
        return settings | ({"release"} if self.release is not None else set())

    def changes(self) -> list[str]:
        """The same with the values, in words; nothing for the settings of everybody else."""
        found = [] if self.release is None else [f"release = {self.release}"]
        for part in ("serving", "bandit"):
            found += [f"{part}.{name} = {value}" for name, value in getattr(self, part).items()]
        return found


class Plan(BaseModel):
    """What somebody wants to know, and how it is to be found out: the file of `matchloop experiment create`."""

    model_config = _strict

    name: Name = Field(description="Name; salts the assignment, and is never used again.")
    hypothesis: str = Field(default="", max_length=2_000, description="What is expected, and why.")
    unit: Literal["user", "item"] = Field(
        default="user",
        description="What is assigned: users, or items as well, so that users of a variant see its part of the "
        "catalogue alone and what it does to items can be told.",
    )
    layer: Name = Field(default="default", description="Experiments on one layer share no user.")
    variants: tuple[Variant, ...] = Field(min_length=2, max_length=20, description="The arms, the control first.")
    testers: Mapping[str, str] = Field(
        default={},
        description="Users who meet a variant whatever their bucket, and count in no report: user = variant.",
    )
    allocation: Literal["fixed", "thompson"] = Field(
        default="fixed",
        description="How each ramp deals those who come in: by the weights, or by the chance that a variant is best.",
    )
    metric: str = Field(default="reward_per_impression", description="What decides.")
    guardrails: tuple[str, ...] = Field(default=(), description="Metrics that must not get worse.")
    minimum_effect: float = Field(default=0.05, gt=0, description="Smallest change worth knowing of, as a share.")
    planned_users: int = Field(
        default=10_000, ge=1, description="Users at which intervals are tightest: `matchloop experiment plan` says."
    )
    confidence: float = Field(default=0.95, ge=0.5, lt=1, description="Of all intervals together, in each metric.")

    @model_validator(mode="after")
    def _variants_are_told_apart(self) -> Self:
        names = [variant.name for variant in self.variants]
        if len(set(names)) < len(names):
            raise ValueError(f"experiment {self.name!r} has two variants of the same name")
        for variant in self.testers.values():
            if variant not in names:
                raise ValueError(f"a tester is to meet {variant!r}, experiment {self.name!r} has {names}")
        return self

    @property
    def control(self) -> str:
        """The variant that the others are compared with."""
        return self.variants[0].name

    def shares(self) -> dict[str, float]:
        """Each variant's share of the users."""
        total = sum(variant.weight for variant in self.variants)
        return {variant.name: variant.weight / total for variant in self.variants}

    def variant_of(self, user: str) -> Variant:
        """The variant of a user key, should the user be in: the same in every process, for ever."""
        return self._dealt(user, [variant.weight for variant in self.variants])

    def _dealt(self, user: str, weights: Sequence[float]) -> Variant:
        point = _point(self.name, user) * sum(weights)
        for variant, weight in zip(self.variants, weights, strict=True):
            point -= weight
            if point < 0:
                return variant
        return self.variants[-1]

    @model_validator(mode="after")
    def _a_parted_catalogue_stays_parted(self) -> Self:
        if self.unit == "item" and self.allocation != "fixed":
            raise ValueError(f"experiment {self.name!r} parts the catalogue: its weights stay as they are (fixed)")
        return self


class Status(StrEnum):
    """Where an experiment stands."""

    DRAFT = "draft"  # assigns nobody yet
    RUNNING = "running"
    STOPPED = "stopped"  # assigns nobody any more


class Ramp(NamedTuple):
    """From when on how large a share of its layer an experiment has."""

    time: int  # ms since the epoch
    share: float
    buckets: frozenset[int] = frozenset()  # that came in with it, where they are dealt by weights of their own
    weights: tuple[float, ...] = ()  # of the variants, for these; empty: the plan's


class Experiment(Plan):
    """A plan and what has become of it. testers are user keys here."""

    status: Status = Status.DRAFT
    created: int = 0  # ms since the epoch
    stopped: int | None = None
    ramps: tuple[Ramp, ...] = ()
    buckets: frozenset[int] = frozenset()  # of its layer
    namespaces: Mapping[str, str] = {}  # of each release that a variant answers with

    @property
    def share(self) -> float:
        """Of the users, how many are in."""
        return len(self.buckets) / BUCKETS

    @property
    def started(self) -> int | None:
        """When the first users came in, ms since the epoch."""
        return self.ramps[0].time if self.ramps else None

    @property
    def adaptive(self) -> bool:
        """Whether some users were dealt by other weights than the plan's."""
        return any(ramp.weights for ramp in self.ramps)

    def chances(self, user: str) -> tuple[float, ...]:
        """With which chances a user key met the variants, in their order."""
        number = bucket(self.layer, user) if self.adaptive else -1
        weights = next((ramp.weights for ramp in self.ramps if number in ramp.buckets), ())
        weights = weights or tuple(variant.weight for variant in self.variants)
        return tuple(weight / sum(weights) for weight in weights)

    def variant_of(self, user: str) -> Variant:
        """As in a plan; a user who came in with a ramp of weights of its own is dealt by these."""
        return self._dealt(user, self.chances(user)) if self.adaptive else super().variant_of(user)

    def corpus(self, item: str) -> int:
        """The number of the variant whose users alone are shown an item; -1: the item is for everybody else. An item
        comes in at a share that is its own, and stays with its variant."""
        into, which = _points(f"corpus\0{self.name}", item)
        if into >= self.share:
            return -1
        ends = itertools.accumulate(self.shares().values())
        return next((number for number, end in enumerate(ends) if which < end), len(self.variants) - 1)

    def assign(self, user: str) -> Variant | None:
        """The variant that a user key meets while nothing but its bucket counts; None: the user is not in."""
        return self.variant_of(user) if bucket(self.layer, user) in self.buckets else None


class Assigned(NamedTuple):
    """A user's variant in one experiment. forced: as a tester."""

    experiment: str
    variant: str
    forced: bool = False


class Assignment:
    """Which variants of the experiments that run a user meets, one of each layer at most."""

    def __init__(self, experiments: Iterable[Experiment]) -> None:
        """Raises InvalidInput if two of them have a bucket of a layer both."""
        running = sorted((one for one in experiments if one.status is Status.RUNNING), key=lambda one: one.name)
        self._forced: dict[str, dict[str, Assigned]] = {}  # by user, by layer
        holders: dict[str, list[Experiment | None]] = {}
        for one in running:
            holder = holders.setdefault(one.layer, [None] * BUCKETS)
            for number in one.buckets:
                if (other := holder[number]) is not None:
                    raise InvalidInput(
                        f"Experiments {other.name!r} and {one.name!r} both claim users of layer {one.layer!r}. Stop "
                        "one of them."
                    )
                holder[number] = one
            for user, variant in one.testers.items():
                self._forced.setdefault(user, {}).setdefault(one.layer, Assigned(one.name, variant, True))
        self._layers = sorted(holders.items())
        self._named = {
            (one.name, variant.name): Assigned(one.name, variant.name) for one in running for variant in one.variants
        }

    def of(self, user: str) -> tuple[Assigned, ...]:
        """Of a user key, in the order of the layers' names."""
        forced = self._forced.get(user, {})
        found = []
        for layer, holder in self._layers:
            if layer in forced:
                found.append(forced[layer])
            elif (experiment := holder[bucket(layer, user)]) is not None:
                found.append(self._named[experiment.name, experiment.variant_of(user).name])
        return tuple(found)


def bucket(layer: str, user: str) -> int:
    """Of a user key, among the BUCKETS of a layer."""
    return int(_point(f"layer\0{layer}", user) * BUCKETS)


def claim(experiment: Experiment, share: float, others: Iterable[Experiment]) -> Experiment:
    """The experiment with so large a share of its layer's users, those that it has among them.

    Raises InvalidInput if the share is smaller than before, no multiple of 1 / BUCKETS, or not free.
    """
    wanted = round(share * BUCKETS)
    if not 0 <= share <= 1 or abs(wanted - share * BUCKETS) > 1e-6:
        raise InvalidInput(f"A share of {share:g} is none of 0, {1 / BUCKETS:g}, {2 / BUCKETS:g}, ... 1.")
    if wanted < len(experiment.buckets):
        raise InvalidInput(
            f"Experiment {experiment.name!r} has {experiment.share:.1%} of the users: with {share:.1%} some would be "
            "moved out. A ramp only grows; to end it, `matchloop experiment stop`."
        )
    rivals = [one for one in others if one.layer == experiment.layer and one.status is Status.RUNNING]
    taken = frozenset[int]().union(*(one.buckets for one in rivals if one.name != experiment.name))
    free = [number for number in range(BUCKETS) if number not in taken and number not in experiment.buckets]
    missing = wanted - len(experiment.buckets)
    if missing > len(free):
        names = ", ".join(sorted(one.name for one in rivals if one.name != experiment.name))
        raise InvalidInput(
            f"Experiment {experiment.name!r} wants {share:.1%} of layer {experiment.layer!r}, of which {names} have "
            f"{len(taken) / BUCKETS:.1%}. Stop one, take less, or name another layer in the file."
        )
    return experiment.model_copy(update={"buckets": experiment.buckets.union(free[:missing])})


def label(assigned: Sequence[Assigned]) -> str:
    """What the log says of them: experiment=variant, joined by +; a forced one ends in !."""
    return "+".join(f"{one.experiment}={one.variant}{_FORCED * one.forced}" for one in assigned) or UNASSIGNED


def label_pattern(experiment: str) -> str:
    """Regular expression (RE2) that finds `variant` and `forced` of an experiment in a label."""
    return rf"(?:^|\+){re.escape(experiment)}=(?P<variant>[a-z][a-z0-9_-]*)(?P<forced>{_FORCED}?)(?:\+|$)"


def assigned_in(text: str) -> tuple[Assigned, ...]:
    """What a label was made of; nothing of one that is none."""
    parts = (part.partition("=") for part in text.split("+") if "=" in part)
    return tuple(Assigned(name, variant.rstrip(_FORCED), variant.endswith(_FORCED)) for name, _, variant in parts)


def variant_in(text: str, experiment: str) -> str | None:
    """The variant of an experiment that a label says, None if the user was not in or in as a tester."""
    met = (one for one in assigned_in(text) if one.experiment == experiment and not one.forced)
    return next((one.variant for one in met), None)


def _point(salt: str, user: str) -> float:
    digest = hashlib.blake2b(f"{salt}\0{user}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _points(salt: str, item: str) -> tuple[float, float]:
    digest = hashlib.blake2b(f"{salt}\0{item}".encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big") / 2**64, int.from_bytes(digest[8:], "big") / 2**64
