"""`matchloop overview` on a lake made by hand, as the dashboard asks for it."""

import time
from pathlib import Path

import msgspec
from pydantic import SecretStr

from feature_store.settings import RedisSettings
from infra.dashboard import Dashboard
from infra.settings import Settings
from tests.api_server import wait_until
from tests.experiment_log import decision, feedback, write_log


def test_the_dashboard_has_what_the_log_says(redis_url: str, tmp_path: Path) -> None:
    redis = RedisSettings(url=SecretStr(redis_url), prefix="overview")
    settings = Settings(home=tmp_path, redis=redis)
    config = tmp_path / "settings.json"
    config.write_bytes(msgspec.json.encode(settings.revealed()))
    dashboard = Dashboard(settings, config)

    made = decision("d", "u", "default", int(time.time() * 1000) - 60_000, ["a", "b"])
    write_log(tmp_path / "lake", [[made, feedback("f", made, "a")]])
    wait_until(lambda: dashboard()["overview"] or dashboard()["no_overview"])
    found = dashboard()
    assert found["no_overview"] is None
    assert (found["overview"]["releases"], found["overview"]["experiments"]) == ([], [])
    (variant,) = found["overview"]["trend"]["variants"]
    assert variant["variant"] == "default"
    assert variant["whole"]["per_thousand"]["value"] == 500.0
    assert (found["running"], found["audit"], found["metrics"]) == (False, [], {})
