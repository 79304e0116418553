"""A/B experiments: which policy a user meets."""

import hashlib
from enum import StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class BanditMode(StrEnum):
    """What the bandit does for a variant."""

    OFF = "off"  # the offline model alone decides; nothing is learnt from its decisions
    EXPLORE = "explore"  # Online Matching: estimates plus exploration
    GREEDY = "greedy"  # the bandit's estimates without exploration


class Variant(BaseModel):
    """One arm of an experiment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,40}$", description="Name in logs and reports.")
    share: float = Field(gt=0, le=1, description="Share of users, by hash of their key.")
    bandit: BanditMode = Field(description="off, explore or greedy.")


class Experiment(BaseModel):
    """Variants and their shares of users. The name salts the assignment: a new name deals the users anew."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(default="default", pattern=r"^[a-z][a-z0-9_-]{0,60}$", description="Name; salts the assignment.")
    variants: tuple[Variant, ...] = Field(
        default=(Variant(name="online-matching", share=1.0, bandit=BanditMode.EXPLORE),),
        min_length=1,
        description="The arms; their shares add up to 1.",
    )

    @model_validator(mode="after")
    def _shares_add_up(self) -> Self:
        total = sum(variant.share for variant in self.variants)
        if abs(total - 1) > 1e-9:
            raise ValueError(f"the shares of experiment {self.name!r} add up to {total}, they must add up to 1")
        if len({variant.name for variant in self.variants}) < len(self.variants):
            raise ValueError(f"experiment {self.name!r} has two variants of the same name")
        return self

    def assign(self, user: str) -> Variant:
        """The variant of a user key: the same in every process, for ever."""
        digest = hashlib.blake2b(f"{self.name}\0{user}".encode(), digest_size=8).digest()
        point = int.from_bytes(digest, "big") / 2**64
        for variant in self.variants:
            point -= variant.share
            if point < 0:
                return variant
        return self.variants[-1]
