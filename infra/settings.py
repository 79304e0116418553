"""All settings in one object, from a TOML file and the environment.

Each room declares its own settings; here they are composed and handed down. Sources, the first one wins: arguments,
`MATCHLOOP_*` variables (`MATCHLOOP_KAFKA_BOOTSTRAP` is `kafka.bootstrap`), `MLFLOW_TRACKING_URI`, then a file: the one
given, or the one that `MATCHLOOP_CONFIG` names, or `./matchloop.toml`. An empty text counts as not set. A secret may
come from a file that `MATCHLOOP_<SETTING>_FILE` names.
"""

import difflib
import json
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails, to_jsonable_python
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from feature_store.contracts.addresses import without_passwords
from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.identity import Keyring, load_or_create_secret
from feature_store.home import Home
from feature_store.object_store import ObjectStore
from feature_store.settings import RedisSettings
from infra.environment import given
from infra.notification import NotifySettings
from offline_training.settings import MlflowSettings, ReleaseSettings, SparkSettings, TrainingSettings
from online_serving.event_mapping import WebhookSettings
from online_serving.settings import ServingSettings
from streaming.settings import BanditSettings, KafkaSettings, LakeSettings, RewardSettings, UpdaterSettings

PREFIX = "MATCHLOOP_"
CONFIG_VARIABLE = "MATCHLOOP_CONFIG"
MLFLOW_VARIABLE = "MLFLOW_TRACKING_URI"
DEFAULT_FILE = Path("matchloop.toml")


class TelemetrySettings(BaseModel):
    """Where each process of MatchLoop answers Prometheus at /metrics, and probes at /healthz and /readyz (the API).
    Without a key: keep it to those who operate MatchLoop."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    host: str = Field(default="127.0.0.1", description="Address to listen on, loopback unless you choose another.")
    port: int = Field(
        default=19100,
        ge=0,
        le=65000,
        description="Port of the first process of the stack; the next ones follow: updaters, sink, API processes. "
        "0 or a busy one: a free one, which `matchloop status` shows.",
    )


class LoggingSettings(BaseModel):
    """What processes and commands write to standard error."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    format: Literal["text", "json"] = Field(
        default="text",
        description="text: a line for people; json: an object a line, for what collects logs. Either has the trace_id "
        "of the request that a line is about.",
    )


class ScheduleSettings(BaseModel):
    """When `matchloop retrain` runs by itself. With one of the two set, `matchloop up` keeps the schedule."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    cron: str | None = Field(
        default=None,
        description="Cron expression in UTC, such as 0 */4 * * * for every four hours; empty: not by the clock.",
    )
    after: int | None = Field(
        default=None, ge=1, description="Events of feedback after which one runs; empty: not by their number."
    )

    @property
    def wanted(self) -> bool:
        """Whether there is a schedule."""
        return self.cron is not None or self.after is not None


class ExperimentSettings(BaseModel):
    """Reports of experiments that run."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    report_minutes: float = Field(
        default=60.0,
        ge=0,
        description="How often the reports of all running experiments are renewed, in MLflow too: by the schedule's "
        "process, or the sink where there is none and the extra train is installed; 0: never.",
    )


class Settings(BaseSettings):
    """Everything that can be set. The constructor takes values only; `load` reads file and environment."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    home: Path = Field(
        default=Path(".matchloop"), validate_default=True, description="Directory of everything that MatchLoop keeps."
    )
    host: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9._-]{1,60}$",
        description="Name of this host under run/ and logs/ of a home that hosts share; empty: the system's.",
    )
    secret: SecretStr | None = Field(
        default=None,
        description="Key of the pseudonyms and decision ids, 16 bytes or more; empty: made once, in <home>/secret.",
    )
    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    lake: LakeSettings = LakeSettings()
    updater: UpdaterSettings = UpdaterSettings()
    serving: ServingSettings = ServingSettings()
    webhooks: WebhookSettings = WebhookSettings()
    rewards: RewardSettings = RewardSettings()
    bandit: BanditSettings = BanditSettings()
    training: TrainingSettings = TrainingSettings()
    releases: ReleaseSettings = ReleaseSettings()
    spark: SparkSettings = SparkSettings()
    mlflow: MlflowSettings = MlflowSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    logging: LoggingSettings = LoggingSettings()
    notify: NotifySettings = NotifySettings()
    schedule: ScheduleSettings = ScheduleSettings()
    experiments: ExperimentSettings = ExperimentSettings()

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @model_validator(mode="after")
    def _keeps_what_is_read(self) -> Self:
        kept, read = self.redis.history_kept, self.training.history_length
        if kept < read:
            raise ValueError(
                f"redis.history_kept {kept} is less than training.history_length {read}: "
                "serving would read less of a history than training. Raise the one, or lower the other"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The constructor's own values: `load` merges the other sources, and so knows where each value came from."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    @property
    def layout(self) -> Home:
        """Where the installation keeps what it makes."""
        url = self.lake.url
        return Home(self.home, ObjectStore(url, self.lake.endpoint, self.lake.region) if url else None)

    def secret_bytes(self) -> bytes:
        """The installation's secret: `secret`, or what the home directory's secret file holds or is given."""
        if self.secret is not None:
            return self.secret.get_secret_value().encode()
        return load_or_create_secret(self.home / "secret")

    def keyring(self) -> Keyring:
        """The maker of user keys and decision ids. Raises InvalidInput if the secret is too short."""
        return Keyring(self.secret_bytes())

    def revealed(self) -> dict[str, Any]:
        """All values as JSON types with the secrets in clear: for a file that only its owner may read."""
        values: dict[str, Any] = to_jsonable_python(_without_secrets(self.model_dump()))
        return values


def load(config: Path | None = None, **overrides: Any) -> Settings:
    """Reads the settings. `overrides` win over every other source: `load(serving={"port": 0})`.

    Raises InvalidInput naming the setting, its value, the rule and where the value came from.
    """
    file, content = _read_file(config)
    variables = given(os.environ, PREFIX, {variable(section, name) for section, name in _secrets()})
    _refuse_unknown(variables)
    source = EnvSettingsSource(Settings, env_prefix=PREFIX, env_nested_delimiter="_", env_nested_max_split=1)
    source.env_vars = {name.lower(): value for name, value in variables.items()}
    try:
        environment = source()
    except SettingsError as error:
        raise InvalidInput(f"{_unreadable(variables)} is not valid JSON: {error.__cause__}.") from None
    tracking = {"mlflow": {"tracking_uri": os.environ.get(MLFLOW_VARIABLE, "")}}
    layers = {
        "an argument": overrides,
        "the environment": environment,
        MLFLOW_VARIABLE: _without_empty(tracking),
        str(file): _without_empty(content),
    }
    merged: dict[str, Any] = {}
    for layer in reversed(layers.values()):
        merged = _merge(merged, layer)
    try:
        return Settings(**merged)
    except ValidationError as error:
        details = error.errors()
        # A list that lost its broken members would also be reported as too short.
        consequences = {detail["loc"][:depth] for detail in details for depth in range(1, len(detail["loc"]))}
        causes = [detail for detail in details if detail["loc"] not in consequences]
        raise InvalidInput("\n".join(_explain(detail, layers) for detail in causes)) from None


def names() -> Iterator[tuple[str, str, type[BaseModel]]]:
    """Every setting: section (empty for the top level), name, and the class that declares it."""
    sections = {}
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            sections[name] = field.annotation
        else:
            yield "", name, Settings
    for section, declared in sections.items():
        for name in declared.model_fields:
            yield section, name, declared


def variable(section: str, name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + "_".join(filter(None, (section, name))).upper()


def _read_file(config: Path | None) -> tuple[Path | None, dict[str, Any]]:
    named = os.environ.get(CONFIG_VARIABLE)
    file = config or (Path(named) if named else None)
    if file is None:
        if not DEFAULT_FILE.is_file():
            return None, {}
        file = DEFAULT_FILE
    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        origin = f"named by {CONFIG_VARIABLE} " if config is None and named else ""
        raise InvalidInput(f"The settings file {file} {origin}cannot be read: {error.strerror}.") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise InvalidInput(f"The settings file {file} is not valid: {error}.") from None
    if not isinstance(content, dict):
        raise InvalidInput(f"The settings file {file} holds {type(content).__name__}, it must hold sections.")
    return file, content


def _secrets() -> Iterator[tuple[str, str]]:
    for section, name, declared in names():
        if SecretStr in get_args(declared.model_fields[name].annotation):
            yield section, name


def _refuse_unknown(variables: Iterable[str]) -> None:
    sections = [name for name, field in Settings.model_fields.items() if isinstance(field.default, BaseModel)]
    known = {CONFIG_VARIABLE, *(variable(section, name) for section, name, _ in names()), *map(_section, sections)}
    for name in variables:
        if name not in known:
            raise InvalidInput(f"The environment variable {name} is not a setting.{_near(name, known)}")


def _unreadable(variables: Mapping[str, str]) -> str:
    for section, name, _ in names():
        value = variables.get(variable(section, name), "")
        try:
            json.loads(value or "null")
        except ValueError:
            if value[0] in "{[":
                return variable(section, name)
    return f"One of the {PREFIX}* variables"


def _section(name: str) -> str:
    return variable("", name)


def _explain(detail: ErrorDetails, layers: Mapping[str, dict[str, Any]]) -> str:
    path = [str(part) for part in detail["loc"]]
    setting = ".".join(path)
    origin = next((name for name, layer in layers.items() if _holds(layer, path)), None)
    if origin == "the environment" and len(path) > 1:
        origin = variable(path[0], path[1])
    came = f" (from {origin})" if origin else ""
    if detail["type"] == "extra_forbidden":
        known = [f"{section}.{name}" if section else name for section, name, _ in names()]
        return f"There is no setting {setting!r}{came}.{_near(setting, known)}"
    rule = detail["msg"].removeprefix("Value error, ")
    secret = any(word in setting for word in ("secret", "key", "url"))
    value = "" if isinstance(detail["input"], dict) or secret else f" is {detail['input']!r}"
    return without_passwords(f"Setting {setting}{value}{came}: {rule}." if setting else f"{rule}.")


def _near(name: str, known: Iterable[str]) -> str:
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {match[0]}?" if match else " `matchloop settings` lists them all."


def _holds(layer: Any, path: list[str]) -> bool:
    for part in path:
        if not isinstance(layer, Mapping) or part not in layer:
            return not isinstance(layer, Mapping)
        layer = layer[part]
    return True


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The union; tables are merged one level deep, so that a table-valued setting is replaced as a whole."""
    merged = dict(below)
    for name, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = {**merged[name], **value} if both else value
    return merged


def _without_empty(values: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: _without_empty(value) if isinstance(value, Mapping) else value for name, value in values.items()}
    return {name: value for name, value in kept.items() if value != ""}


def _without_secrets(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, dict):
        return {name: _without_secrets(part) for name, part in value.items()}
    return value
