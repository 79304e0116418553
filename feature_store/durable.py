"""Files and folders that are there whole or not at all, and stay after a power failure."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


def write_file(path: Path, content: bytes) -> None:
    """Writes aside, and renames what is on the disk."""
    draft = path.with_name(f"{path.name}.part")
    draft.write_bytes(content)
    publish(draft, path)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to write into, in place of `path` when this ends well. What a killed try has left is removed."""
    draft = path.with_name(f"{path.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
        shutil.rmtree(path, ignore_errors=True)
        publish(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def publish(draft: Path, path: Path) -> None:
    """Renames a file or folder once all of it is on the disk."""
    for inner in draft.rglob("*") if draft.is_dir() else ():
        to_disk(inner)
    to_disk(draft)
    draft.rename(path)
    to_disk(path.parent)


def to_disk(path: Path) -> None:
    """Has the file, or what a folder lists, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
