"""Namespaces: what a fold of the log starts from.

A namespace belongs to one release and lies in `<namespaces>/<id>/`. Its state is, at any time,
`base + fold(log from offsets)`; the base and the offsets never change. What it begins with may lose the names of users
who were erased.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from feature_store.contracts.errors import ReleaseRefused
from feature_store.decay import Decay
from feature_store.durable import publish
from feature_store.graph import Graph
from feature_store.sums import Rows
from feature_store.translation import Translation

_DESCRIPTION = "namespace.json"
_BASE = "base.parquet"
_GRAPH = "graph.parquet"
_STARTS = "starts.msgpack"


class Start(msgspec.Struct, frozen=True):
    """Where the fold of a partition begins, beside the sums that are in the base."""

    stream_time: int = 0
    learning: bool = True
    opened: dict[str, bytes] = {}  # open decisions, as the fold writes them: their later feedback still counts


class Description(msgspec.Struct, frozen=True):
    """What a namespace is, without what it holds."""

    id: str
    release: str
    log: str
    offsets: list[int]
    created: int
    translations: list[str]
    memory_days: float | None = None
    replaced: dict[str, int] = {}
    steepness: float = 1.0

    @property
    def decay(self) -> Decay:
        """How trials fade in its sums."""
        return Decay(self.memory_days, self.created)

    @classmethod
    def load(cls, namespaces: Path, namespace: str) -> "Description":
        """Reads the description of `<namespaces>/<id>/`. Raises ReleaseRefused if it is not there or damaged."""
        with _reading(namespaces / namespace) as directory:
            return msgspec.json.decode((directory / _DESCRIPTION).read_bytes(), type=cls)


class Namespace(msgspec.Struct, frozen=True, kw_only=True):
    """Where a fold begins, and how it reads decisions of other releases.

    log, offsets: the log id, and per partition the first offset that the base does not hold. starts: per partition,
    what else the fold begins with. translations: by release id; a decision of that release is folded onto this
    release's clusters by it. A decision of a release without a translation updates its item rows only. replaced: by
    release id, when its successor was made, ms since the epoch. memory_days: what a trial counts fades to 1/e in so
    many days, with `created` as the landmark; None: never. steepness: the release's, by which its predictions are held
    against what came (streaming/bandit/slates.py).
    """

    id: str
    release: str
    log: str
    offsets: list[int]
    created: int  # ms since the epoch
    graph: Graph  # the release's: translated decisions update the edges it has
    base: Rows
    starts: list[Start]
    translations: dict[str, Translation] = {}
    replaced: dict[str, int] = {}
    memory_days: float | None = None
    steepness: float = 1.0

    @property
    def decay(self) -> Decay:
        """How trials fade in its sums."""
        return Decay(self.memory_days, self.created)

    def save(self, namespaces: Path) -> None:
        """Writes `<namespaces>/<id>/`, whole or not at all. Raises ReleaseRefused if it exists."""
        final = namespaces / self.id
        if final.exists():
            raise ReleaseRefused(f"Namespace {self.id} exists already at {final}. A namespace is never rewritten.")
        draft = namespaces / f".{self.id}.{os.getpid()}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        self.base.save(draft / _BASE)
        self.graph.save(draft / _GRAPH)
        (draft / _STARTS).write_bytes(encode_starts(self.starts))
        for release, translation in self.translations.items():
            translation.save(draft / f"translation-{release}.npz")
        description = Description(
            *(self.id, self.release, self.log, self.offsets, self.created, sorted(self.translations)),
            *(self.memory_days, self.replaced, self.steepness),
        )
        (draft / _DESCRIPTION).write_bytes(msgspec.json.encode(description))
        publish(draft, final)

    @classmethod
    def load(cls, namespaces: Path, namespace: str) -> "Namespace":
        """Reads what save wrote. Raises ReleaseRefused if it is not there or damaged."""
        description = Description.load(namespaces, namespace)
        with _reading(namespaces / namespace) as directory:
            return cls(
                id=description.id,
                release=description.release,
                log=description.log,
                offsets=description.offsets,
                created=description.created,
                graph=Graph.load(directory / _GRAPH),
                base=Rows.load(directory / _BASE),
                starts=decode_starts((directory / _STARTS).read_bytes()),
                translations={
                    release: Translation.load(directory / f"translation-{release}.npz")
                    for release in description.translations
                },
                memory_days=description.memory_days,
                replaced=description.replaced,
                steepness=description.steepness,
            )


def starts_file(namespaces: Path, namespace: str) -> Path:
    """Where the beginnings of a namespace's folds are."""
    return namespaces / namespace / _STARTS


def encode_starts(starts: list[Start]) -> bytes:
    """What the file holds."""
    return msgspec.msgpack.encode(starts)


def decode_starts(data: bytes) -> list[Start]:
    """Reads what encode_starts made. Raises msgspec.MsgspecError for anything else."""
    return msgspec.msgpack.decode(data, type=list[Start])


def read_base(namespaces: Path, namespace: str) -> Iterator[Rows]:
    """Only the base of a namespace, in parts: all that serving needs beside the description. Raises ReleaseRefused if
    it is not there or damaged."""
    with _reading(namespaces / namespace) as directory:
        yield from Rows.read(directory / _BASE)


@contextmanager
def _reading(directory: Path) -> Iterator[Path]:
    try:
        yield directory
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise ReleaseRefused(
            f"Namespace {directory.name} cannot be read at {directory} ({error}). Restore it, or train again."
        ) from None


def namespace_id(release: str, number: int) -> str:
    """The id of a release's n-th namespace."""
    return f"{release}-{number}"
