"""A world's release: trained, once, as `matchloop train` trains one, and what it makes of the world's visitors."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.pay.world import World
from benchmarks.retrieval.item_lists import spark_lists
from benchmarks.retrieval.ours import sequences, training_data
from feature_store.arrays import Float64
from feature_store.contracts.manifest import MANIFEST
from feature_store.user_features import UserFeatures
from infra.settings import load
from offline_training.data.item_lists import SEQUENTIAL
from offline_training.progress import Progress
from offline_training.release.write import write_release
from offline_training.retrieval.dataset import Impressions
from offline_training.retrieval.pi2i.lists import AT_END, AT_VALIDATION, MakeLists
from offline_training.settings import TrainingSettings
from offline_training.train_models import train_models
from online_serving.item_lists import ItemLists
from online_serving.pipeline.features import candidate_features, encode_user
from online_serving.pipeline.request import Request
from online_serving.snapshot import Snapshot

NOTHING_SHOWN = Impressions.none()
_ROOT = Path(__file__).parents[2]
_TRAINED_BY = (
    "offline_training/*.py",
    "offline_training/data/item_*.py",
    "offline_training/ranking/*.py",
    "offline_training/release/*.py",
    "offline_training/retrieval/**/*.py",
    "feature_store/definitions.py",
    "benchmarks/retrieval/ours.py",
)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A world with its release. Nothing in it changes: arms share it."""

    world: World
    releases: Path  # the folder that holds the release
    release: str
    snapshots: tuple[Snapshot, ...]  # (turns,) the release with the catalogue of each turn
    users: tuple[UserFeatures, ...]  # the visitors, by number, as they come for the first time

    @cached_property
    def predicted(self) -> Float64:
        """(V, items) the ranker's probabilities, by item number, of the visitors when they come for the first time."""
        last, request = self.snapshots[-1], Request(self.world.slate, time=self.world.moment)
        everything, rows = np.arange(last.size), []
        for user in self.users:
            features = candidate_features(last, encode_user(last, user, request), everything)
            rows.append(last.towers.predict(features).astype(np.float64))
        return np.stack(rows)


def prepare(world: World, releases: Path, release: str) -> Prepared:
    """Loads a release and lets the world's newcomers into its catalogue, turn by turn."""
    snapshot = Snapshot.load(releases, release, world.past.items)
    snapshots = []
    for turn in range(world.turns):
        snapshot = snapshot.with_items([(new.item.id, new.item) for new in world.newcomers if new.turn == turn])
        snapshots.append(snapshot)
    return Prepared(world, releases, release, tuple(snapshots), visitors(world))


def visitors(world: World) -> tuple[UserFeatures, ...]:
    """What is known of the visitors, by number, when they come for the first time."""
    known, names = sequences(world.past, np.arange(len(world.past.positive))), [item.id for item in world.past.items]
    users = []
    for user in world.visitors.tolist():
        events = known.events(user, int(known.start[user + 1] - known.start[user]), names)
        users.append(UserFeatures(world.past.profiles[user], events, frozenset(event.item for event in events)))
    return tuple(users)


def train(
    world: World,
    folder: Path,
    settings: TrainingSettings,
    progress: Progress,
    impressions: Impressions = NOTHING_SHOWN,
) -> tuple[Path, str]:
    """The release of a world, and the folder that holds it. One that lies in `folder` is used again as long as the
    world's past, the settings and the code that trains are the same. impressions: what was shown in that past."""
    kept = folder / _digest(world, settings, impressions)
    releases = kept / "releases"
    for path in sorted(releases.glob(f"[!.]*/{MANIFEST}")):
        return releases, path.parent.name
    imported = world.past.log.time < impressions.time.min(initial=world.moment)  # the loop tells of likes only
    data = training_data(world.past, np.arange(len(imported)), imported)
    data = replace(data, impressions=impressions)
    if settings.list_length:
        progress(0.0, f"{world.name}: making item lists")
        data = replace(data, lists=_item_lists(world, data.validation_time, settings.list_length))
    trained = train_models(data, kept / "checkpoints", settings, progress)
    return releases, write_release(releases, trained, settings, None, world.moment)


def _item_lists(world: World, validation_time: int, longest: int) -> MakeLists:
    """Made by the Spark job, which is started for them alone."""
    from offline_training.data.spark import spark_session, stop_session  # asked for only when it takes part

    log = world.past.log
    wanted = np.flatnonzero(world.past.positive)
    moments = {AT_VALIDATION: validation_time, AT_END: world.moment}
    spark = spark_session(load().spark, "matchloop-bench-pay")
    try:
        made = {
            name: spark_lists(spark, log.take(wanted[log.time[wanted] < until]), SEQUENTIAL, longest)
            for name, until in moments.items()
        }
    finally:
        stop_session(spark)

    def lists(name: str, length: int) -> ItemLists:
        return made[name].cut(length)

    return lists


def _digest(world: World, settings: TrainingSettings, impressions: Impressions = NOTHING_SHOWN) -> str:
    past = world.past
    digest = hashlib.blake2b(digest_size=8)
    shown = [array for part in (impressions.items, impressions.rewards) for array in part]
    for array in (past.log.user, past.log.item, past.log.time, past.positive, past.kinds, impressions.time, *shown):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(msgspec.json.encode((past.items, past.profiles, world.moment, settings.model_dump(mode="json"))))
    for pattern in _TRAINED_BY:
        for path in sorted(_ROOT.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()
