"""Where settings come from, which source wins, and what is said about wrong ones."""

import os
import re
from pathlib import Path

import pytest

from feature_store.contracts.errors import InvalidInput
from infra import manual
from infra.settings import Settings, load, names, variable


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory and an environment without settings."""
    for name in os.environ:
        if name.startswith(("MATCHLOOP_", "MLFLOW_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_defaults_need_no_file_and_no_environment(elsewhere: Path) -> None:
    settings = load()
    assert settings == Settings()
    assert settings.home == elsewhere / ".matchloop"


def test_arguments_win_over_environment_over_file_over_default(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere / "matchloop.toml").write_text(
        "[serving]\nslate_size = 5\ncandidates = 55\nmax_slate_size = 56\n[bandit]\nalpha = 0.7\n"
    )
    monkeypatch.setenv("MATCHLOOP_SERVING_SLATE_SIZE", "6")
    monkeypatch.setenv("MATCHLOOP_SERVING_CANDIDATES", "66")
    settings = load(serving={"slate_size": 7})
    assert settings.serving.slate_size == 7
    assert settings.serving.candidates == 66
    assert settings.serving.max_slate_size == 56
    assert settings.bandit.alpha == 0.7
    assert settings.bandit.edge_prior == Settings().bandit.edge_prior


def test_the_file_is_the_given_one_or_the_named_one_or_that_of_the_directory(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("given", "named", "matchloop"):
        (elsewhere / f"{name}.toml").write_text(f"[mlflow]\nmodel = '{name}'\n")
    assert load().mlflow.model == "matchloop"
    monkeypatch.setenv("MATCHLOOP_CONFIG", "named.toml")
    assert load().mlflow.model == "named"
    assert load(Path("given.toml")).mlflow.model == "given"


def test_every_setting_has_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "MATCHLOOP_HOME": "/srv/matchloop",
        "MATCHLOOP_SECRET": "a long random text",
        "MATCHLOOP_KAFKA_BOOTSTRAP": "kafka:9092",
        "MATCHLOOP_REDIS_URL": "redis://redis:6379",
        "MATCHLOOP_REWARDS_WEIGHTS": '{"click": 1, "purchase": 5}',
        "MATCHLOOP_REWARDS_AGGREGATION": "sum",
        "MATCHLOOP_SERVING_REPEAT_DAYS": "7",
        "MATCHLOOP_BANDIT_MODE": "off",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = load()
    assert settings.home == Path("/srv/matchloop")
    assert settings.secret is not None
    assert settings.secret.get_secret_value() == "a long random text"
    assert settings.kafka.bootstrap == "kafka:9092"
    assert settings.redis.url is not None
    assert settings.redis.url.get_secret_value() == "redis://redis:6379"
    assert settings.rewards.weights == {"click": 1.0, "purchase": 5.0}
    assert settings.rewards.aggregation == "sum"
    assert settings.serving.repeat_days == 7
    assert settings.bandit.mode == "off"
    assert {variable(section, name) for section, name, _ in names()} >= given.keys()


def test_mlflows_own_variable_counts_unless_ours_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://theirs")
    assert load().mlflow.tracking_uri == "http://theirs"
    monkeypatch.setenv("MATCHLOOP_MLFLOW_TRACKING_URI", "http://ours")
    assert load().mlflow.tracking_uri == "http://ours"


def test_an_empty_text_is_no_value(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (elsewhere / "matchloop.toml").write_text("[redis]\nurl = ''\n")
    monkeypatch.setenv("MATCHLOOP_KAFKA_BOOTSTRAP", "")
    settings = load()
    assert settings.redis.url is None
    assert settings.kafka.bootstrap is None


def test_boosts_of_a_surface_end_when_toml_says_so(elsewhere: Path) -> None:
    boosts = "{ 'has(label)' = { factor = 2.0, until = 2026-01-01T00:00:00Z }, cheap = 3 }"
    (elsewhere / "matchloop.toml").write_text(f"[serving.surfaces.mail]\nboosts = {boosts}\n")
    found = load().serving.surfaces["mail"].boosts
    assert found["has(label)"].until == 1_767_225_600_000
    assert [found["has(label)"].at(1_767_225_600_000 + offset) for offset in (-1, 0)] == [2.0, 1.0]
    assert found["cheap"].factor == 3.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[kafka\n", "matchloop.toml is not valid: Expected ']'"),
        ("[kafka]\npartitons = 3\n", r"no setting 'kafka.partitons' \(from matchloop.toml\). .* kafka.partitions\?"),
        (
            "[serving.surfaces.mail]\nfilter = 'price <'\n",
            r"'price <' is no filter expression: line 1, column 8: invalid",
        ),
        (
            "[serving.surfaces.mail]\nboosts = { 'has(label)' = { factor = 2.0, half_life_hours = 3.0 } }\n",
            r"surfaces.mail.boosts.has\(label\).*half_life_hours says how fast it fades, and since is missing",
        ),
        ("[serving.surfaces.mail]\nslate_size = 101\n", r"mail.slate_size 101 is more than serving.max_slate_size 100"),
        ("[zoo]\n", r"no setting 'zoo' \(from matchloop.toml\)"),
        ("kafka = 3\n", r"Setting kafka is 3 \(from matchloop.toml\)"),
        ("[kafka]\npartitions = 0\n", r"kafka.partitions is 0 \(from matchloop.toml\): .* greater than or equal to 1"),
        ("[rewards]\nminimum = 2.0\n", r"rewards.minimum 2.0 must be below rewards.maximum 1.0"),
        ("[serving]\nhost = '0.0.0.0'\n", "Set MATCHLOOP_SERVING_API_KEY"),
        ("[bandit]\nmode = 'on'\n", "Setting bandit.mode is 'on'"),
    ],
)
def test_a_wrong_file_is_refused_with_setting_value_rule_and_origin(
    elsewhere: Path, content: str, message: str
) -> None:
    (elsewhere / "matchloop.toml").write_text(content)
    with pytest.raises(InvalidInput, match=message):
        load()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("MATCHLOOP_SERVING_PORT", "high", r"serving.port is 'high' \(from MATCHLOOP_SERVING_PORT\)"),
        ("MATCHLOOP_KAFKA_BOOTSTRAPS", "x", "not a setting. Did you mean MATCHLOOP_KAFKA_BOOTSTRAP?"),
        ("MATCHLOOP_REWARDS_WEIGHTS", "{click", "MATCHLOOP_REWARDS_WEIGHTS is not valid JSON"),
        ("MATCHLOOP_CONFIG", "nowhere.toml", "nowhere.toml named by MATCHLOOP_CONFIG cannot be read: No such file"),
    ],
)
def test_a_wrong_variable_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidInput, match=message):
        load()


def test_secrets_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATCHLOOP_REDIS_URL", "redis://:hunter2@host")
    settings = load()
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in settings.model_dump_json()
    assert settings.revealed()["redis"]["url"] == "redis://:hunter2@host"


def test_the_revealed_values_make_the_same_settings() -> None:
    settings = load(secret="sixteen bytes or more", redis={"url": "redis://host"})
    assert Settings(**settings.revealed()) == settings


def test_the_manual_is_what_the_settings_classes_say() -> None:
    file = Path(manual.__file__).with_name("matchloop.toml")
    assert file.read_text() == manual.render(), "run: matchloop settings > infra/matchloop.toml"


def test_the_manual_names_every_setting_with_its_default_and_meaning(elsewhere: Path) -> None:
    text = manual.render()
    uncommented = re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE)
    assert uncommented.count(" = ") > len(list(names()))
    (elsewhere / "all.toml").write_text(uncommented)
    assert load(Path("all.toml")) == Settings()
    for section, name, declared in names():
        assert declared.model_fields[name].description, f"{section}.{name} has no description"
        assert re.search(rf"^# {name} = ", text, re.MULTILINE)


def test_serving_reads_no_less_of_a_history_than_training(elsewhere: Path) -> None:
    (elsewhere / "matchloop.toml").write_text("[redis]\nhistory_kept = 60\n[training]\nhistory_length = 60\n")
    assert load().training.history_length == 60
    (elsewhere / "matchloop.toml").write_text("[redis]\nhistory_kept = 60\n[training]\nhistory_length = 61\n")
    with pytest.raises(InvalidInput, match=r"redis\.history_kept 60 is less than training\.history_length 61"):
        load()


_LINKS = {  # what Kubernetes gives every container for Services called matchloop, matchloop-api and matchloop-serving
    "MATCHLOOP_SERVICE_HOST": "10.0.0.1",
    "MATCHLOOP_PORT": "tcp://10.0.0.1:80",
    "MATCHLOOP_API_SERVICE_HOST": "10.0.0.2",
    "MATCHLOOP_API_SERVICE_PORT": "80",
    "MATCHLOOP_API_SERVICE_PORT_HTTP": "80",
    "MATCHLOOP_API_PORT": "tcp://10.0.0.2:80",
    "MATCHLOOP_API_PORT_80_TCP": "tcp://10.0.0.2:80",
    "MATCHLOOP_API_PORT_80_TCP_PROTO": "tcp",
    "MATCHLOOP_API_PORT_80_TCP_PORT": "80",
    "MATCHLOOP_API_PORT_80_TCP_ADDR": "10.0.0.2",
    "MATCHLOOP_SERVING_PORT": "tcp://10.0.0.3:80",
}


def test_service_links_of_kubernetes_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in _LINKS.items():
        monkeypatch.setenv(name, value)
    assert load() == Settings()
    monkeypatch.setenv("MATCHLOOP_API_PORT", "80")
    with pytest.raises(InvalidInput, match="MATCHLOOP_API_PORT is not a setting"):
        load()


def test_secrets_may_be_files(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "MATCHLOOP_SECRET": "sixteen bytes or more",
        "MATCHLOOP_REDIS_URL": "redis://:p@host",
        "MATCHLOOP_SERVING_API_KEY": " key ",
    }
    for name, value in given.items():
        (elsewhere / name).write_text(f"{value}\n")
        monkeypatch.setenv(f"{name}_FILE", str(elsewhere / name))
    values = load().revealed()
    assert values["secret"] == "sixteen bytes or more"
    assert values["redis"]["url"] == "redis://:p@host"
    assert values["serving"]["api_key"] == " key "


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("MATCHLOOP_SECRET_FILE", "nowhere", "file nowhere that MATCHLOOP_SECRET_FILE names cannot be read: No such"),
        ("MATCHLOOP_SECRET_FILE", "empty", "file empty that MATCHLOOP_SECRET_FILE names is empty"),
        ("MATCHLOOP_SECRET_FILE", "binary", "file binary that MATCHLOOP_SECRET_FILE names is not text"),
        ("MATCHLOOP_SERVING_API_KEY_FILE", "good", "Both MATCHLOOP_SERVING_API_KEY and MATCHLOOP_SERVING_API_KEY_FILE"),
        ("MATCHLOOP_KAFKA_BOOTSTRAP_FILE", "good", "MATCHLOOP_KAFKA_BOOTSTRAP_FILE is not a setting"),
    ],
)
def test_a_secret_file_that_will_not_do_is_named(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    (elsewhere / "empty").write_text("\n")
    (elsewhere / "good").write_text("a secret that is long enough")
    (elsewhere / "binary").write_bytes(b"\xff\xfe\x00")
    monkeypatch.setenv("MATCHLOOP_SERVING_API_KEY", "key")
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidInput, match=message):
        load()
