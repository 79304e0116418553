"""The experiments, and a number that says when they have changed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import redis
from pydantic import ValidationError

from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.experiments import Experiment, Status
from feature_store.online.keys import Keys


class Experiments(NamedTuple):
    """All of them, stopped ones too, by name. version: rises with each change."""

    version: int
    by_name: dict[str, Experiment]

    @property
    def running(self) -> list[Experiment]:
        """Those that assign users."""
        return [one for one in self.by_name.values() if one.status is Status.RUNNING]

    def named(self, name: str) -> Experiment:
        """One of them. Raises InvalidInput if there is none of this name."""
        return named(self.by_name, name)


class OnlineExperiments:
    """The experiments, for code that may block."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self._redis = client
        self._keys = Keys(prefix)

    def version(self) -> int:
        """Of what `read` would give."""
        return int(self._redis.get(self._keys.experiments_version) or 0)

    def read(self) -> Experiments:
        """Raises InvalidInput for one that this program cannot read."""
        pipe = self._redis.pipeline(transaction=True)
        pipe.get(self._keys.experiments_version)
        pipe.hgetall(self._keys.experiments)
        version, found = pipe.execute()
        return Experiments(int(version or 0), _parsed(found))

    def change(self, name: str, made: Callable[[dict[str, Experiment]], Experiment]) -> Experiment:
        """Puts what `made` makes of all experiments in the place of the one of this name; they are as they were when it
        is written, or it is asked again."""

        def write(pipe: Any) -> Experiment:
            experiment = made(_parsed(pipe.hgetall(self._keys.experiments)))  # immediate while watching
            pipe.multi()
            pipe.hset(self._keys.experiments, name, experiment.model_dump_json())
            pipe.incr(self._keys.experiments_version)
            return experiment

        changed: Experiment = self._redis.transaction(write, self._keys.experiments, value_from_callable=True)
        return changed


def named(experiments: dict[str, Experiment], name: str) -> Experiment:
    """One of them. Raises InvalidInput if there is none of this name."""
    if name not in experiments:
        there = f"There are {', '.join(experiments)}" if experiments else "There is none yet"
        raise InvalidInput(f"There is no experiment {name!r}. {there}. `matchloop experiment create FILE` makes one.")
    return experiments[name]


def _parsed(found: dict[bytes, bytes]) -> dict[str, Experiment]:
    experiments = {}
    for name, text in sorted(found.items()):
        try:
            experiments[name.decode()] = Experiment.model_validate_json(text)
        except ValidationError as error:
            raise InvalidInput(
                f"Experiment {name.decode()!r} was written by another version of this program, or by something else: "
                f"{error.errors()[0]['msg']}. Run the version that wrote it."
            ) from None
    return experiments
