"""Settings of the stores."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class Fsync(StrEnum):
    """When the append-only file is on disk."""

    EVERYSEC = "everysec"
    ALWAYS = "always"


class RedisSettings(BaseModel):
    """The online store. Without a URL the stack starts an embedded server."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: SecretStr | None = Field(
        default=None,
        description="redis://user:password@host:6379/0, rediss:// with TLS (?ssl_ca_certs=/etc/ca.pem), or "
        "redis+sentinel://user:password@host:26379,host:26379/NAME/0; empty: embedded.",
    )
    fsync: Fsync = Field(
        default=Fsync.EVERYSEC,
        description="For the embedded server: a power failure loses up to a second of writes (everysec) or none "
        "(always, slower).",
    )
    prefix: str = Field(
        default="matchloop",
        pattern=r"^[A-Za-z0-9_-]{1,40}$",
        description="Prefix of every key, so that several installations can share a server.",
    )
    deltas_kept: int = Field(
        default=10_000,
        ge=10,
        description="Most commits between two snapshots of a partition's rows; a reader further behind reloads.",
    )
    history_kept: int = Field(default=200, ge=1, description="Newest interactions kept per user as history.")
    shown_kept: int = Field(
        default=500,
        ge=1,
        description="Newest shown items kept per user, so as not to repeat them; 7 bytes each.",
    )
    shown_days: int = Field(
        default=30,
        ge=1,
        description="What a user was shown leaves Redis after so many days without a request.",
    )
    user_days: int = Field(
        default=180,
        ge=1,
        description="What is known of a user leaves Redis after so many days without a request or feedback.",
    )
