"""Something to play with while the demo trains: the quick demo, in a home and with servers of its own."""

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from infra.demo import Stage
from infra.demo_home import demo_settings
from infra.quick_demo import readers, run_quick
from infra.settings import Settings
from infra.stack import Stack
from offline_training.progress import Progress
from online_serving.pages.training import Training, tell

_TELL_SECONDS = 0.5


class Meanwhile:
    """Serves made-up books until what is trained takes their place."""

    def __init__(self, given: Settings, home: Path, of: str, steps: Sequence[str]) -> None:
        """of: what is trained on. steps: titles of the stages before that is served."""
        self._settings = _settings(given, home)
        self._stack = Stack(self._settings)
        self._of, self._steps = of, steps
        self._next = 0.0  # when it is told again how far the training is

    def start(self, progress: Progress) -> str:
        """Returns the address of the page."""
        self._settings.home.mkdir(parents=True, exist_ok=True)
        self._tell(self._steps[0], 0.0, "")
        return run_quick(self._stack, progress)

    def told(self, stage: Stage) -> Stage:
        """The same stages, of which the page tells."""

        @contextmanager
        def telling(title: str) -> Iterator[Progress]:
            with stage(title) as report:

                def both(fraction: float, message: str) -> None:
                    report(fraction, message)
                    self._tell(title, fraction, message)

                yield both

        return telling

    def close(self) -> None:
        """Leaves the address to others, and nothing behind."""
        self._stack.stop()
        shutil.rmtree(self._settings.home, ignore_errors=True)

    def _tell(self, title: str, fraction: float, message: str) -> None:
        home, now = self._settings.home, time.monotonic()
        if title in self._steps and home.is_dir() and now >= self._next:
            self._next = now + _TELL_SECONDS
            step = self._steps.index(title) + 1
            tell(home, Training(self._of, step, len(self._steps), title, fraction, message))


def _settings(given: Settings, home: Path) -> Settings:
    values = demo_settings(given, home, readers()).revealed()
    values |= {"kafka": {}, "redis": {}}  # servers of yours see nothing of it
    values["serving"] |= {"workers": 1, "drain_seconds": 0}
    values["updater"] |= {"processes": 1}
    values["telemetry"] |= {"port": 0}  # the ports of the settings are for what comes
    return Settings(**values)
