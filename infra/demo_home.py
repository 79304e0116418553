"""The home directory of a demo: emptied, and with the settings of the run in it."""

import shutil
from collections.abc import Collection
from pathlib import Path

import msgspec

from infra.settings import Settings
from infra.stack import Stack

SHARES = {"calm": 0.0, "bold": 0.5}  # of places that explore, by surface: what the playground can choose
MEANWHILE = "meanwhile"  # the home of what is to play with until the demo serves
_KEPT = ("cache", "mlflow")


def demo_settings(settings: Settings, home: Path, users: Collection[str]) -> Settings:
    """The settings of a run: those given, with a home of its own, the lake in it, and the playground. users: whom that
    offers to be."""
    values = settings.revealed()
    values["home"], values["lake"]["url"] = str(home), None
    values["serving"] |= {"playground": True, "playground_users": list(users)}
    values["bandit"]["explore_share_by_surface"] |= SHARES
    return Settings(**values)


def begin_anew(settings: Settings) -> Path:
    """Stops what still runs in the home of earlier runs, empties it, but for downloads and MLflow, and writes the run's
    settings into it: the file for MATCHLOOP_CONFIG, by which other commands find the run."""
    home = settings.home
    for earlier in (settings, settings.model_copy(update={"home": home / MEANWHILE})):
        if Stack(earlier).running:
            Stack.attach(earlier).stop()
    for path in home.iterdir() if home.is_dir() else ():
        if path.name not in _KEPT:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    home.mkdir(parents=True, exist_ok=True)
    config = home / "settings.json"
    config.touch(mode=0o600)
    config.write_bytes(msgspec.json.encode(settings.revealed()))
    return config
