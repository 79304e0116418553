"""Which programs the settings ask for."""

from pathlib import Path

import pytest

from feature_store.settings import Fsync, RedisSettings
from infra.programs import programs
from infra.settings import Settings
from online_serving.settings import ServingSettings
from streaming.settings import UpdaterSettings


def test_the_programs_of_the_defaults_in_order(tmp_path: Path) -> None:
    assert list(programs(Settings(home=tmp_path))) == ["broker", "redis", "mlflow", "updater", "sink", "api"]


def test_several_updaters_and_api_processes_have_numbers_and_the_same_role(tmp_path: Path) -> None:
    found = programs(Settings(home=tmp_path, updater=UpdaterSettings(processes=2), serving=ServingSettings(workers=3)))
    assert list(found)[3:] == ["updater", "updater-2", "sink", "api", "api-2", "api-3"]
    assert {found[name].role for name in ("api", "api-2", "api-3")} == {"api"}
    assert {found[name].preferred_port for name in ("api", "api-2")} == {0}  # 8080 is for them all


@pytest.mark.parametrize("fsync", list(Fsync))
def test_the_embedded_redis_syncs_as_told(tmp_path: Path, fsync: Fsync) -> None:
    command = programs(Settings(home=tmp_path, redis=RedisSettings(fsync=fsync)))["redis"].command(1)
    assert command[command.index("--appendfsync") + 1] == fsync
