"""Rewriting many files of the home directory so that a reader sees all of the old ones or all of the new.

New files are written aside, in `<home>/.rewrite/`, with a list of what they are to replace. Once the list is complete
they count: a rewrite that was killed before that never was, one that was killed after it is completed by the next
reader. Locks, list and drafts are in the home's own folder, which all hosts share, also where an object store has the
lake (infra/decisions/object-store.md).
"""

import contextlib
import fcntl
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec

from feature_store.contracts.errors import Unavailable
from feature_store.durable import to_disk
from feature_store.home import Home
from feature_store.lake_claim import claim
from feature_store.lake_path import LakePath, replace

_LIST = "replaces.json"
_WORK, _FILES = ".rewrite.work", ".rewrite.files"  # what locks are held on


class Rewrite:
    """New versions of files, collected aside."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._folder = _folder(home)
        self._replaced: list[str | tuple[str, list[str]]] = []  # by the number of the draft; relative to home

    def draft(self, path: LakePath) -> Path:
        """Where to write what is to replace the file."""
        return self._draft(self._home.name_of(path))

    def draft_of_many(self, path: LakePath, replaced: Collection[LakePath]) -> Path:
        """Where to write a new file that is to replace others."""
        return self._draft((self._home.name_of(path), [self._home.name_of(old) for old in replaced]))

    def _draft(self, replaced: str | tuple[str, list[str]]) -> Path:
        self._replaced.append(replaced)
        return self._folder / str(len(self._replaced) - 1)

    def __len__(self) -> int:
        return len(self._replaced)

    def publish(self) -> None:
        """Has the new files count, as soon as nobody reads the old ones."""
        for number in range(len(self._replaced)):
            to_disk(self._folder / str(number))
        aside = self._folder / f".{_LIST}"
        aside.write_bytes(msgspec.json.encode(self._replaced))
        to_disk(aside)
        with _locked(self._home, _FILES, fcntl.LOCK_EX):
            aside.rename(self._folder / _LIST)
            to_disk(self._folder)
            _complete(self._home)


@contextlib.contextmanager
def rewriting(home: Home) -> Iterator[Rewrite]:
    """A rewrite, one at a time. Nothing changes unless it is published. Raises Unavailable while another one is under
    way, or somebody works who must not be disturbed."""
    claim(home)
    home.root.mkdir(parents=True, exist_ok=True)
    with (home.root / _WORK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(
                f"Files of {home.root} cannot be rewritten now: a training, a rollback or another rewriting is under "
                "way. Try again when it has ended."
            ) from None
        with reading(home):
            pass  # a rewrite that was killed is completed
        folder = _folder(home)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield Rewrite(home)
        finally:
            if not (folder / _LIST).exists():
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def undisturbed(home: Home) -> Iterator[None]:
    """No rewriting begins meanwhile: for who makes new files from those that are there. Waits until one that has begun
    has ended."""
    with _locked(home, _WORK, fcntl.LOCK_SH), reading(home):
        yield


@contextlib.contextmanager
def reading(home: Home) -> Iterator[None]:
    """No file is replaced meanwhile; a rewriting may begin."""
    while True:
        with _locked(home, _FILES, fcntl.LOCK_SH):
            if not _is_listed(home):
                yield
                return
        with _locked(home, _FILES, fcntl.LOCK_EX):
            _complete(home)


def _complete(home: Home) -> None:
    """Moves each new file into its place. A file that is gone by now stays gone; where one file replaces many they go
    when it is there."""
    if not _is_listed(home):
        return  # somebody else was quicker
    folder = _folder(home)
    listed = msgspec.json.decode((folder / _LIST).read_bytes(), type=list[str | tuple[str, list[str]]])
    for number, entry in enumerate(listed):
        name, old = (entry, []) if isinstance(entry, str) else entry
        draft, path = folder / str(number), home.named(name)
        if draft.exists() and (old or path.exists()):
            replace(draft, path)
        for replaced in old:
            home.named(replaced).unlink(missing_ok=True)
    shutil.rmtree(folder)


def _is_listed(home: Home) -> bool:
    return (_folder(home) / _LIST).exists()


def _folder(home: Home) -> Path:
    return home.root / ".rewrite"


@contextlib.contextmanager
def _locked(home: Home, name: str, how: int) -> Iterator[None]:
    home.root.mkdir(parents=True, exist_ok=True)
    with (home.root / name).open("a") as lock:
        fcntl.flock(lock, how)  # released when the process ends, however it does
        yield
