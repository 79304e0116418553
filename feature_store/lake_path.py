"""Files of the lake, wherever it is: in a folder of the file system, or of an object store."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from feature_store.durable import publish, to_disk, write_file
from feature_store.object_store import ObjectPath

LakePath = Path | ObjectPath
AnyPath = TypeVar("AnyPath", bound=LakePath)  # of one kind


def make_folder(folder: LakePath) -> None:
    """Makes the folder of a partition if it is not there; an object store needs none."""
    if isinstance(folder, Path) and not folder.is_dir():
        folder.mkdir(parents=True)
        for made in (folder, *folder.parents[:3]):
            to_disk(made)


@contextlib.contextmanager
def new_file(path: LakePath) -> Iterator[Path]:
    """A draft to write, which becomes the file when this ends well and all of it is kept. An object that is there
    stays: who writes it knows that it holds the same."""
    if isinstance(path, Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.stem}.{os.getpid()}")
        try:
            yield draft
            publish(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    else:
        with tempfile.TemporaryDirectory(prefix="matchloop-") as folder:
            draft = Path(folder) / path.name
            yield draft
            path.create(draft.read_bytes())


def replace(draft: Path, path: LakePath) -> None:
    """Has the file hold what the draft does, at one moment. It need not be there, nor its folder."""
    if isinstance(path, Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        publish(draft, path)
    else:
        path.put(draft)


def replace_content(path: LakePath, content: bytes) -> None:
    """The same with this content."""
    if isinstance(path, Path):
        write_file(path, content)
    else:
        path.put(content)


def set_aside(path: LakePath, suffix: str) -> None:
    """Gives a file another suffix."""
    if isinstance(path, Path):  # the same twice: each is renamed to one of its own kind
        path.rename(path.with_suffix(suffix))
    else:
        path.rename(path.with_suffix(suffix))


def size(path: LakePath) -> int:
    """Of a file, bytes. Raises FileNotFoundError if there is none."""
    if isinstance(path, Path):
        return path.stat().st_size
    found = path.size if path.size is not None else path.looked_up().size
    assert found is not None
    return found


def fetch(path: LakePath, target: Path) -> None:
    """Has the target, which is not there, hold what the file does. Files of a lake are never changed, only replaced, so
    that a hard link does; where the file system has none it is copied, from an object store it is fetched."""
    if isinstance(path, ObjectPath):
        path.fetch(target)
        return
    try:
        os.link(path, target)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            target.unlink()
        shutil.copy2(path, target)
