"""What has come of an installation: its releases and what the gate said of them, what variants earned, experiments, new
items. `matchloop overview`, and the dashboard of the API."""

from collections.abc import Sequence

import msgspec

from feature_store.contracts.errors import InvalidInput, MatchLoopError
from feature_store.contracts.experiments import Experiment, Status
from feature_store.definitions import DAY_MS
from feature_store.rewriting import reading
from infra.settings import Settings
from infra.site import site
from offline_training.data.lake import items_since
from offline_training.experiment.analysis import analyse
from offline_training.experiment.outcomes import everybody, outcomes
from offline_training.experiment.trend import Trend, trend
from offline_training.promotion.releases import Release, describe, roles
from streaming.lake_files import event_logs


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """An experiment that runs, and what it has found so far."""

    name: str
    share: float  # of its layer's users
    verdict: str


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """What has come of an installation until a time, ms since the epoch."""

    made: int
    releases: list[Release]  # those that serve, did before, or were held back
    experiments: list[Judged]
    trend: Trend | None  # None: `nothing` says why
    nothing: str | None


def overview(settings: Settings, days: float, now: int) -> Overview:
    """Of the last so many days until now, ms since the epoch. Raises Unavailable if Redis does not answer."""
    with site(settings) as at:
        standing = roles(at)
        releases = [describe(at, name, standing) for name in dict.fromkeys(filter(None, standing))]
        running = [one for one in at.online.experiments.read().by_name.values() if one.status is Status.RUNNING]
    lake, since = settings.layout.lake, now - int(days * DAY_MS)
    logs, earned, nothing = event_logs(lake), None, None
    with reading(settings.layout):
        try:
            earned = trend(everybody(lake, logs, since, settings.rewards), items_since(lake, since), now)
        except InvalidInput:
            nothing = "No recommendation of these days is in the lake yet."
        judged = [Judged(name=one.name, share=one.share, verdict=_verdict(settings, one, logs)) for one in running]
    return Overview(made=now, releases=releases, experiments=judged, trend=earned, nothing=nothing)


def _verdict(settings: Settings, experiment: Experiment, logs: Sequence[str]) -> str:
    try:
        return analyse(experiment, outcomes(settings.layout.lake, logs, experiment, settings.rewards)).verdict.sentence
    except MatchLoopError as error:
        return str(error)
