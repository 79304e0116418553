"""`matchloop demo --quick`: the loop without its offline half, for the playground.

Readers, books and models are made up here, and no training is needed; servers, log and bandit are the real ones.
"""

import itertools
from collections.abc import Sequence

import faiss
import numpy as np

from feature_store.arrays import Float32
from feature_store.contracts.catalogue import Item
from feature_store.contracts.clock import SystemClock
from feature_store.contracts.errors import Unavailable
from feature_store.definitions import ITEM_TOKENS, HistoryEvent, token_ids
from feature_store.graph import Graph
from feature_store.item_ids import ItemIds
from feature_store.online.deployment import Active
from feature_store.online.store import OnlineStore
from infra.benchmarks.small_release import build_namespace, item_features, token_embedding, write_release
from infra.connections import event_log, redis_client
from infra.programs import API, BROKER, REDIS, SINK, UPDATER
from infra.settings import Settings
from infra.stack import Stack
from offline_training.progress import Progress, section
from offline_training.simulation.result import SimulationSettings
from offline_training.simulation.simulator import Simulator
from offline_training.simulation.world import World
from online_serving.release_files import Contents, ItemTable

_SHELVES = {
    "Mystery": ("Alibi", "Key", "Witness", "Locked Room", "Cipher", "Footprint"),
    "Romance": ("Letter", "Summer", "Promise", "Dance", "Stranger", "Wedding"),
    "Space": ("Orbit", "Star", "Signal", "Moon", "Airlock", "Comet"),
    "Sea": ("Harbour", "Tide", "Lighthouse", "Island", "Whale", "Storm"),
    "History": ("Crown", "Siege", "Chronicle", "Empire", "Revolt", "Archive"),
    "Cooking": ("Kitchen", "Table", "Spice", "Bread", "Feast", "Garden"),
    "Travel": ("Road", "Train", "Border", "Map", "Desert", "Pass"),
    "Ghosts": ("House", "Shadow", "Whisper", "Grave", "Mirror", "Candle"),
    "Music": ("Song", "Violin", "Silence", "Chorus", "Record", "Rhythm"),
    "Nature": ("Forest", "Fox", "Valley", "River", "Winter", "Orchard"),
}
_WORDS = ("Silent", "Last", "Hidden", "Golden", "Broken", "Distant", "Secret", "Crimson", "Forgotten", "Borrowed")
_NAMES = ("Ada", "Ben", "Cleo", "Dev", "Ella", "Finn", "Gus", "Hana", "Ines", "Jonas")
_BOOKS = 400
_DIMENSIONS = 32
_READERS = 150
_KNOWN = 12  # books in the history of a reader
_LIKED = 0.45  # of the books on a reader's two shelves
_VISITS = 150
_RANKER = (6.0, 0.2, -6.0)  # what readers like of a shelf that is theirs, and hardly anything of the others


def run_quick(stack: Stack, progress: Progress) -> str:
    """Has a stack that was not started yet serve the library, and some of its readers visit, and leaves it running.
    Returns the API's address."""
    stack.start(BROKER, REDIS, progress=section(progress, 0.0, 0.2))
    live, rng = stack.settings, np.random.default_rng(stack.settings.training.seed)
    catalogue = books(rng)
    likes = {name: _liked(name, catalogue, rng) for name in [*readers(), *(f"reader {n}" for n in range(_READERS))]}
    publish(live, catalogue, likes, rng)
    stack.start(UPDATER, SINK, API, progress=section(progress, 0.2, 0.8))
    if (api := stack.endpoints.api) is None:
        raise Unavailable("The API has no address. `matchloop status` names its log.")
    key = live.serving.api_key
    visits = SimulationSettings(
        url=api,
        visits=_VISITS,
        slate_size=live.serving.slate_size,
        seed=live.training.seed,
        api_key=key.get_secret_value() if key else None,
    )
    others = World({name: frozenset(liked) for name, liked in likes.items() if name not in readers()})
    Simulator(others, [], visits, SystemClock()).run(section(progress, 0.8, 1.0))
    return api


def readers() -> list[str]:
    """User ids that say what they like: two shelves each."""
    shelves = list(_SHELVES)
    return [
        f"{name} ({shelf}, {shelves[(n + 3) % len(shelves)]})"
        for n, (name, shelf) in enumerate(zip(_NAMES, shelves, strict=True))
    ]


def books(rng: np.random.Generator) -> list[Item]:
    """A catalogue of books with different titles, on one or two shelves each; earlier ones are more popular."""
    titles = [
        (f"The {word} {noun}", shelf)
        for shelf, nouns in _SHELVES.items()
        for word, noun in itertools.product(_WORDS, nouns)
    ]
    shelves = list(_SHELVES)
    made = []
    for number, chosen in enumerate(rng.choice(len(titles), _BOOKS, replace=False).tolist()):
        title, shelf = titles[chosen]
        other = shelves[int(rng.integers(len(shelves)))]
        categories = [shelf] if other == shelf or rng.random() < 0.5 else [shelf, other]
        made.append(Item(id=f"book-{number + 1}", title=title, categories=categories))
    return made


def publish(
    settings: Settings, catalogue: Sequence[Item], likes: dict[str, list[str]], rng: np.random.Generator
) -> None:
    """Makes a release of the catalogue whose clusters are the shelves, puts it with the readers' histories into the
    servers of the settings, and activates it. likes: item ids by user id."""
    log = event_log(settings)
    log.create_topics()
    tokens = np.array([token_ids(item.tokens(), ITEM_TOKENS) for item in catalogue])
    embedding = token_embedding(_DIMENSIONS, rng)
    vectors = _unit(embedding[tokens].sum(axis=1))
    shelf = np.array([[name in item.categories for item in catalogue] for name in _SHELVES])
    centroids = _unit(np.array([vectors[on].mean(axis=0) for on in shelf]))
    cluster, item = np.nonzero(shelf)
    ids = [item.id for item in catalogue]
    index = faiss.IndexFlatIP(_DIMENSIONS)
    index.add(vectors)
    contents = Contents(
        ItemTable(ItemIds.of(ids), vectors, item_features(len(ids))),
        centroids,
        Graph.build(ids, item, cluster, len(_SHELVES)),
        index,
    )
    releases, namespaces = settings.home / "releases", settings.home / "namespaces"
    release = write_release(releases, contents, tokens, embedding, history_length=20, ranker=_RANKER)
    namespace = build_namespace(namespaces, releases, release, log.log_id(), settings.kafka.partitions)
    now, keyring = SystemClock().now_ms(), settings.keyring()
    with redis_client(settings) as client:
        online = OnlineStore(client, settings.redis)
        online.catalogue.add(catalogue)
        online.users.add_history(
            (keyring.user_key(name), HistoryEvent(liked, "like+", now - 60_000 * (n + 1)))
            for name, all_liked in likes.items()
            for n, liked in enumerate(all_liked[:_KNOWN])
        )
        online.deployment.activate(Active(release, namespace))


def _liked(name: str, catalogue: Sequence[Item], rng: np.random.Generator) -> list[str]:
    """What a reader likes: of the shelves in the name, or of two at random."""
    named = [shelf for shelf in _SHELVES if shelf in name]
    shelves = set(named or rng.choice(list(_SHELVES), 2, replace=False).tolist())
    return [item.id for item in catalogue if shelves & set(item.categories) and rng.random() < _LIKED]


def _unit(vectors: Float32) -> Float32:
    unit: Float32 = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit
