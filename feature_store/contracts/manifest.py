"""Releases: immutable, content-hashed bundles that training writes and serving reads.

A release is a directory `<releases>/<id>/` with `manifest.json` and the files it names. The id is the hash of the
manifest, the manifest holds the hash of each file, so an id vouches for every byte.
"""

import hashlib
import math
from pathlib import Path
from typing import Any

import msgspec

from feature_store.contracts.errors import UNREADABLE, ReleaseRefused

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
_BLOCK = 1 << 20


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a release says about itself."""

    schema: int = SCHEMA_VERSION
    created: int  # ms since the epoch
    features: str  # hash of the feature definitions that training used
    dimensions: int  # length of user and item vectors
    clusters: int
    history_length: int  # items of history that the user tower reads
    active_clusters: int
    context_temperature: float
    items: int
    # How many times as steeply as predicted rewards rise within what is offered to one person; before, none was known.
    steepness: float = 1.0
    nearest_items: int | None = None  # that each cluster is connected to; None, before there were others: all it has
    parent: str | None  # the release whose online statistics went into this one's base
    files: dict[str, str]  # file name -> sha256
    parameters: dict[str, str | int | float | bool | None] = {}  # how it was trained
    metrics: dict[str, float] = {}  # how good it was offline


def seal(directory: Path, manifest: Manifest) -> str:
    """Writes the manifest over the files in the directory and returns the release id (16 hex characters).

    `manifest.files` is ignored and made from the files found.
    """
    files = {path.name: file_hash(path) for path in sorted(directory.iterdir()) if path.name != MANIFEST}
    content = msgspec.json.format(msgspec.json.encode(msgspec.structs.replace(manifest, files=files)))
    (directory / MANIFEST).write_bytes(content)
    return _release_id(content)


def read_manifest(directory: Path) -> Manifest:
    """Reads what a release says about itself, and none of its other files. Raises ReleaseRefused if it is not there,
    was changed, or is of another schema."""
    path = directory / MANIFEST
    try:
        content = path.read_bytes()
        manifest = _decode(content)
    except (FileNotFoundError, NotADirectoryError):
        raise ReleaseRefused(f"There is no release at {directory}. Run `matchloop train`.") from None
    except UNREADABLE as error:
        raise ReleaseRefused(f"{path} is not a release manifest: {error}. Train again, or restore a backup.") from None
    if manifest.schema != SCHEMA_VERSION:
        raise ReleaseRefused(
            f"Release {directory.name} has schema {manifest.schema}, this program reads {SCHEMA_VERSION}. Train again."
        )
    if _release_id(content) != directory.name:
        raise ReleaseRefused(f"The manifest of release {directory.name} was changed. Restore it, or train again.")
    return manifest


def open_release(directory: Path, features: str) -> Manifest:
    """Reads and checks a release. Raises ReleaseRefused if a byte differs from what was sealed, or if the release was
    made with another schema or other feature definitions than `features`, the hash of this program's."""
    manifest = read_manifest(directory)
    if manifest.features != features:
        raise ReleaseRefused(
            f"Release {directory.name} was trained with feature definitions {manifest.features}, this program computes "
            f"{features}. Serve it with the version that trained it, or train again."
        )
    for name, expected in manifest.files.items():
        file = directory / name
        if not file.is_file() or file_hash(file) != expected:
            raise ReleaseRefused(f"File {file} is missing or was changed. Restore it, or train again.")
    return manifest


def _decode(content: bytes) -> Manifest:
    found = msgspec.json.decode(content, type=dict[str, Any])
    if isinstance(metrics := found.get("metrics"), dict):  # JSON has no NaN: it was written as null
        found["metrics"] = {name: math.nan if value is None else value for name, value in metrics.items()}
    return msgspec.convert(found, Manifest)


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _release_id(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
