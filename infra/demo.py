"""`matchloop demo`: the whole loop on the tastes of real people, from nothing to a report.

Import -> stack -> release 1 -> visitors over HTTP, each with a twin in every variant, while new items enter and release
2 is trained from what was learnt and swapped in -> report. Everything is real and lives in a home directory of its own,
`<home>/demo` (`infra/demo_home.py`).
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import httpx

from feature_store.contracts.clock import SystemClock
from feature_store.contracts.errors import Unavailable
from feature_store.contracts.experiments import Plan, Variant
from infra.connections import mlflow_uri, redis_client
from infra.drain import drain
from infra.live_retrain import LiveRetrain, Traffic
from infra.programs import API, BROKER, MLFLOW, REDIS, SINK, UPDATER
from infra.settings import Settings
from infra.site import site
from infra.stack import Stack
from infra.training import training_job
from infra.verification import verify
from offline_training.data.importer import import_data
from offline_training.data.lake import read_catalogue, time_at_share
from offline_training.data.movielens import fetch
from offline_training.data.sources import Mapping as Columns
from offline_training.data.user_ids import user_ids
from offline_training.experiment.lifecycle import Base, create, start
from offline_training.experiment.loop_metrics import loop_metrics
from offline_training.jobs.train import train
from offline_training.progress import Progress, section
from offline_training.report.data import LoopReport, ModelQuality, traffic
from offline_training.report.report import log_to_mlflow, write_report
from offline_training.runs.runs import published_sets
from offline_training.simulation.result import SimulationSettings
from offline_training.simulation.simulator import Simulator
from offline_training.simulation.twins import share_histories, twin_ids
from offline_training.simulation.world import World, withheld_items
from streaming.settings import BanditMode

_TRAIN_SHARE = 0.8  # of the time span; what comes later are the visitors' tastes
_WITHHELD_SHARE = 0.15  # of the items
_ARRIVALS_UNTIL = 0.6  # of the visits
VISITS = 5_000
VISITS_PER_SECOND = 30.0

FROZEN, GREEDY, MATCHING = "frozen", "greedy", "online-matching"
EXPERIMENT = Plan(
    name="demo",
    hypothesis="Learning from feedback within a second earns more than a model that was trained beforehand.",
    variants=(
        Variant(name=FROZEN, bandit={"mode": BanditMode.OFF}),
        Variant(name=GREEDY, bandit={"mode": BanditMode.GREEDY}),
        Variant(name=MATCHING, bandit={"mode": BanditMode.EXPLORE}),
    ),
    testers={"Ada": MATCHING, "Ben": MATCHING, "Cleo": GREEDY, "Dev": FROZEN},  # for the playground; they count nowhere
)

Stage = Callable[[str], AbstractContextManager[Progress]]
BEFORE_SERVING = ("Data", "Stack", "Train", "Serve")  # stages


class Outcome(NamedTuple):
    """What a run leaves behind."""

    report: LoopReport
    page: Path
    settings: Settings
    api: str


def run_loop(
    stack: Stack,
    settings: Settings,
    data: Path | None,
    visits: int,
    pace: float,
    stage: Stage,
    make_way: Callable[[], object] = lambda: None,
    announce: Callable[[str], object] = lambda _: None,
) -> Outcome:
    """Runs the whole loop on a stack that was not started yet, and leaves it running.

    settings: from demo_settings. data: a directory in the import format; None: MovieLens-100K. visits: how many
    recommendations are asked for, at most `pace` a second. make_way: is called before the API takes its port.
    announce: is told the API's address when it answers.
    """
    seconds: dict[str, float] = {}
    clock, lake, keyring = SystemClock(), settings.layout.lake, settings.keyring()

    with _timed(seconds, "data"), stage("Data") as progress:
        source = data or fetch(settings.home / "cache", section(progress, 0.0, 0.6))
        imported = import_data(source, settings.layout, keyring, Columns(), clock, section(progress, 0.6, 1.0))
        split = time_at_share(lake, _TRAIN_SHARE) // 1000 * 1000  # whole seconds, as the command line takes it
        items = {name: item for name, item in read_catalogue(lake).items() if item is not None}
        withheld = withheld_items(items, _WITHHELD_SHARE, settings.training.seed)
        ids = user_ids(source, Columns(), keyring)
        world = World.from_lake(lake, ids, split, settings.training.positive_value)
        world = world.with_twins(twin_ids(world.likes, EXPERIMENT, keyring, ids.values()))
        twins = {keyring.user_key(person): list(map(keyring.user_key, own)) for person, own in world.twins.items()}

    with _timed(seconds, "stack"), stage("Stack") as progress:
        stack.start(BROKER, REDIS, MLFLOW, progress=progress)
    live = stack.settings

    with (
        _timed(seconds, "train"),
        stage("Train") as progress,
        training_job(live, "train", split, frozenset(withheld)) as job,
    ):
        first = train(job, progress)
        share_histories(job.home.lake, published_sets(job.home.runs)[0], job.online.users, twins, split)

    with _timed(seconds, "serve"), stage("Serve") as progress:
        with site(live) as at:
            base = Base(live.serving, live.bandit)
            create(at, EXPERIMENT, base, keyring, clock.now_ms())
            start(at, EXPERIMENT.name, 1.0, base, clock.now_ms())
        stack.start(UPDATER, SINK, progress=section(progress, 0.0, 0.5))
        make_way()
        stack.start(API, progress=section(progress, 0.5, 1.0))
        api = stack.endpoints.api
        if api is None:
            raise Unavailable("The API has no address. `matchloop status` names its log.")
    announce(api)

    secret = live.serving.api_key
    key = secret.get_secret_value() if secret else None
    traffic_plan = SimulationSettings(
        url=api,
        visits=visits,
        slate_size=live.serving.slate_size,
        arrivals_until=_ARRIVALS_UNTIL,
        seed=live.training.seed,
        api_key=key,
    )
    with (
        _timed(seconds, "online"),
        stage("Online") as progress,
        LiveRetrain(stack.environment(), settings.home, split, withheld, partial(_serving, api, key)) as retrain,
    ):

        def follow(fraction: float, message: str) -> None:
            progress((fraction + retrain.fraction) / 2, f"{message}; {retrain.message}")

        around = Traffic(visits, pace, retrain)
        arrivals = [items[name] for name in withheld]
        visited = Simulator(world, arrivals, traffic_plan, clock, around.rate).run(follow)
        second = retrain.result(lambda fraction, message: progress((1 + fraction) / 2, message))

    with _timed(seconds, "report"), stage("Report") as progress:
        progress(0.0, "waiting until everything is folded and stored")
        log_id = drain(live).log_id
        progress(0.3, "replaying the log")
        with redis_client(live) as client:
            comparisons = [found for partitions in verify(live, client).values() for found in partitions]
        progress(0.5, "computing the figures")
        people = {twin: person for person, own in twins.items() for twin in own}
        seed = live.training.seed
        loop = loop_metrics(
            lake, [log_id], EXPERIMENT, FROZEN, live.rewards, live.bandit, withheld, len(twins), seed, people
        )
        report = LoopReport(
            data_set=data_set(data),
            people=len(twins),
            items=len(items),
            interactions=imported.interactions.accepted + imported.interactions.duplicates,
            seed=seed,
            positive_value=live.training.positive_value.get("rating", 1.0),
            created_ms=clock.now_ms(),
            loop=loop,
            traffic=traffic(visited),
            quality=[*_quality("release 1", first.metrics), *_quality("release 2", second)],
            state_equals_replay=all(c.equal for c in comparisons),
            state_largest_difference=max(c.largest_difference for c in comparisons),
            stage_seconds=seconds,
        )
        page = settings.home / "report.html"
        write_report(report, page)
        progress(0.8, "logging to MLflow")
        log_to_mlflow(report, page, mlflow_uri(live), live.mlflow.experiment)
    return Outcome(report, page, live, api)


def data_set(data: Path | None) -> str:
    """What the loop runs on, in words."""
    return "MovieLens-100K" if data is None else data.resolve().name


def _serving(url: str, api_key: str | None) -> str | None:
    """The id of the release that answers are made with; None if the API does not say."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        answer = httpx.get(f"{url}/v1/parameters", headers=headers, timeout=10)
        release: str | None = answer.json().get("release") if answer.status_code == httpx.codes.OK else None
    except httpx.TransportError:
        return None
    return release


def _quality(release: str, metrics: Mapping[str, float]) -> list[ModelQuality]:
    """A release and the baselines beside it, on the same held-out users."""
    shown = {"recall_at_50": "recall@50", "hit_rate_at_10": "hit rate@10", "ndcg_at_10": "NDCG@10"}
    models = {
        "two_stage": (release, False),
        "retrieval": (f"{release}, retrieval alone", False),
        "popularity": (f"popularity beside {release}", True),
        "recent_popularity": (f"recent popularity beside {release}", True),
        "item_knn": (f"item-kNN beside {release}", True),
    }
    return [
        ModelQuality(
            name=name,
            baseline=baseline,
            metrics={
                words: metrics[f"held_out_{model}_{metric}"]
                for metric, words in shown.items()
                if f"held_out_{model}_{metric}" in metrics
            },
        )
        for model, (name, baseline) in models.items()
    ]


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    seconds[name] = time.monotonic() - began
