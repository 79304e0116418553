"""Recommendations for many users at once, into a file: for mails and the like.

The pipeline of an API process answers, in this process: the same rules, experiments and parameters, and what Redis
knows of each user now. Nothing passes through HTTP, and as many users are in memory as are answered at once.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from feature_store.batches import batches
from feature_store.contracts.catalogue import attribute_text
from feature_store.contracts.errors import InvalidInput, Unavailable
from offline_training.data.lake import parquet_files
from offline_training.progress import Progress
from offline_training.runs.runs import published_sets
from online_serving.api import Services
from online_serving.app import create_app
from online_serving.config import ServerConfig
from online_serving.errors import BrokenRules, broken_detail
from online_serving.schemas import PreviewRequest

_LOADING_SECONDS = 300.0
_LOOK_SECONDS = 0.1
_LOG_SECONDS = 10.0
_ITEM = pa.struct(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("title", pa.string()),
        pa.field("categories", pa.list_(pa.string())),
        pa.field("attributes", pa.map_(pa.string(), pa.string())),  # as texts, like the lake's
    ]
)
COLUMNS = pa.schema(
    [
        pa.field("user", pa.string(), nullable=False),
        pa.field("decision_id", pa.string()),  # null: it is no decision
        pa.field("items", pa.list_(_ITEM), nullable=False),
    ]
)
FORMS = (".parquet", ".jsonl")
Row = dict[str, Any]


class People(NamedTuple):
    """Whom to recommend to."""

    names: Iterable[str]
    total: int
    are_keys: bool  # as in lake and training sets; otherwise ids


def listed(file: Path) -> People:
    """The ids in a file, one a line; read as they are wanted. Raises InvalidInput if there is none, or it cannot be
    read."""

    def ids() -> Iterator[str]:
        with file.open(encoding="utf-8") as lines:
            yield from (name for line in lines if (name := line.strip()))

    try:
        count = sum(1 for _ in ids())
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"The file {file} cannot be read: {error}. Give one with an id a line, in UTF-8.") from None
    if not count:
        raise InvalidInput(f"The file {file} names nobody. Give one with an id a line.")
    return People(ids(), count, are_keys=False)


def trained_on(runs: Path) -> People:
    """The users of the training sets that were published last. Raises InvalidInput if there are none."""
    sets, _ = published_sets(runs)
    files = parquet_files(sets / "users")

    def keys() -> Iterator[str]:
        for file in files:
            with pq.ParquetFile(file) as source:
                for batch in source.iter_batches(columns=["user"]):
                    yield from batch["user"].to_pylist()

    return People(keys(), sum(pq.read_metadata(file).num_rows for file in files), are_keys=True)


class Rows(Protocol):
    """Where rows go."""

    def write(self, rows: Sequence[Row]) -> None:
        """Adds rows."""


class Wanted(NamedTuple):
    """What each user is to get, as fields of a request (schemas.RecommendationRequest), and whether each answer is a
    decision: logged, explored, and shown."""

    request: dict[str, Any]
    decided: bool


@contextlib.contextmanager
def written(target: Path) -> Iterator[Rows]:
    """A file of rows, of the form that its suffix says, which is there when all of it is. Raises InvalidInput for
    another suffix."""
    if target.suffix not in FORMS:
        raise InvalidInput(
            f"The file {target} is of no form that is written: name it .parquet, or .jsonl for JSON lines."
        )
    draft = target.with_name(f".{target.name}.new")
    try:
        with _Parquet(draft) if target.suffix == ".parquet" else _Lines(draft) as rows:
            yield rows
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


class _Parquet:
    def __init__(self, path: Path) -> None:
        self._writer = pq.ParquetWriter(path, COLUMNS, compression="zstd")

    def __enter__(self) -> "_Parquet":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write(self, rows: Sequence[Row]) -> None:
        self._writer.write_table(
            pa.Table.from_pylist([{**row, "items": _texts(row["items"])} for row in rows], COLUMNS)
        )


class _Lines:
    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, rows: Sequence[Row]) -> None:
        self._file.write(msgspec.json.Encoder().encode_lines(rows))


def _texts(items: Sequence[Row]) -> list[Row]:
    return [
        {**item, "attributes": [(name, attribute_text(value)) for name, value in item["attributes"].items()]}
        if "attributes" in item
        else item
        for item in items
    ]


async def recommend_to(config: ServerConfig, people: People, wanted: Wanted, rows: Rows, progress: Progress) -> int:
    """Writes a row for each user; returns how many.

    Raises Unavailable if no release can be loaded, or Redis does not say what is known of users; InvalidInput for a
    request that breaks a rule.
    """
    # Nobody waits for an answer: the log may take its time.
    patient = config.serving.model_copy(update={"decision_deadline_ms": _LOG_SECONDS * 1000})
    app = create_app(dataclasses.replace(config, serving=patient))
    services: Services = app.state.services
    async with app.router.lifespan_context(app):
        progress(0.0, "loading what serves")
        await _loaded(services)
        done = 0
        for batch in batches(people.names):
            rows.write(await asyncio.gather(*(_row(services, user, people.are_keys, wanted) for user in batch)))
            done += len(batch)
            progress(min(done / people.total, 1.0), f"{done} users")
    return done


async def _row(services: Services, user: str, keys: bool, wanted: Wanted) -> Row:
    key = user if keys else None
    try:
        asked = PreviewRequest(user_id=user, explain=False, **wanted.request)
    except ValidationError as error:
        raise BrokenRules([broken_detail(problem) for problem in error.errors(include_url=False)]) from None
    recommender = services.recommender
    answer = await (recommender.answer(asked, key) if wanted.decided else recommender.preview(asked, key))
    if "user_features" in answer["degraded"]:
        raise Unavailable("Redis does not say what is known of users. Try again when it answers.")
    items = [{name: item[name] for name in _ITEM.names if name in item} for item in answer["items"]]
    return {"user": user, "decision_id": answer.get("decision_id"), "items": items}


async def _loaded(services: Services) -> None:
    current, until = services.current, asyncio.get_running_loop().time() + _LOADING_SECONDS
    while not current.serving.is_set() and current.loading and asyncio.get_running_loop().time() < until:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(current.serving.wait(), _LOOK_SECONDS)
    assert current.state  # or it says why not
