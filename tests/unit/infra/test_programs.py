"""Which programs the settings ask for."""

from pathlib import Path

import pytest

from feature_store.settings import Fsync, RedisSettings
from infra.programs import programs
from infra.settings import ScheduleSettings, Settings, TelemetrySettings
from online_serving.settings import ServingSettings
from streaming.settings import UpdaterSettings


def test_the_programs_of_the_defaults_in_order(tmp_path: Path) -> None:
    assert list(programs(Settings(home=tmp_path))) == ["broker", "redis", "mlflow", "updater", "sink", "api"]


def test_several_updaters_and_api_processes_have_numbers_and_the_same_role(tmp_path: Path) -> None:
    found = programs(Settings(home=tmp_path, updater=UpdaterSettings(processes=2), serving=ServingSettings(workers=3)))
    assert list(found)[3:] == ["updater", "updater-2", "sink", "api", "api-2", "api-3"]
    assert {found[name].role for name in ("api", "api-2", "api-3")} == {"api"}
    metrics = [program.preferred_port for program in list(found.values())[3:]]
    assert metrics == [19100, 19101, 19102, 19103, 19104, 19105]  # one after the other, for a scraper


def test_metrics_are_where_the_settings_say(tmp_path: Path) -> None:
    telemetry = TelemetrySettings(host="127.0.0.2", port=9000)
    found = programs(Settings(home=tmp_path, telemetry=telemetry))
    assert [(found[name].host, found[name].preferred_port) for name in ("updater", "sink", "api")] == [
        ("127.0.0.2", 9000), ("127.0.0.2", 9001), ("127.0.0.2", 9002),
    ]  # fmt: skip
    free = programs(Settings(home=tmp_path, telemetry=TelemetrySettings(port=0)))
    assert {free[name].preferred_port for name in ("updater", "sink", "api")} == {0}


def test_a_schedule_is_kept_where_one_is_set(tmp_path: Path) -> None:
    for schedule in (ScheduleSettings(cron="0 4 * * *"), ScheduleSettings(after=100)):
        found = programs(Settings(home=tmp_path, schedule=schedule))
        assert list(found)[-2:] == ["api", "schedule"]
        assert set(found["schedule"].requires) == {"broker", "redis", "mlflow"}
        assert found["schedule"].command(7)[-3:] == ["schedule", "--metrics-port", "7"]


@pytest.mark.parametrize("fsync", list(Fsync))
def test_the_embedded_redis_syncs_as_told(tmp_path: Path, fsync: Fsync) -> None:
    command = programs(Settings(home=tmp_path, redis=RedisSettings(fsync=fsync)))["redis"].command(1)
    assert command[command.index("--appendfsync") + 1] == fsync
