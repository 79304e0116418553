"""An installation in a folder: what it needs to go on elsewhere, with what was learnt.

The lake is copied as of one moment, then what else is in the home. Redis is not: `matchloop recover` rebuilds it. A
lake in an object store stays there: what says that it is this home's is copied.
"""

import hashlib
import shutil
from pathlib import Path

import msgspec

from feature_store.contracts.errors import UNREADABLE, InvalidInput, Unavailable
from feature_store.durable import to_disk, whole_folder, write_file
from feature_store.home import Home
from feature_store.lake_claim import MARK
from feature_store.rewriting import undisturbed
from offline_training.runs.watermark import freeze

_MANIFEST = "backup.json"
_KEY_FILE, _API_KEYS = "secret", "keys.json"  # the latter are hashed
# Beside the lake. What one host's servers keep, caches and logs are left out.
_FOLDERS = ("releases", "namespaces", "runs", "verdicts", "deployment", "experiments", "audit")


class Backup(msgspec.Struct, frozen=True):
    """What a backup holds."""

    created: int  # ms since the epoch
    files: int
    bytes: int
    digest: str  # of the files' names and contents
    secret: bool  # whether the secret that user keys and decision ids are made with is in it


def backup(home: Home, target: Path, now: int, with_secret: bool) -> Backup:
    """Copies the home into a new folder, whole or not at all, while its processes go on. now: ms since the epoch.

    Raises InvalidInput if the folder is there or nothing serves yet, LakeDamaged if the lake has a hole.
    """
    if target.exists():
        raise InvalidInput(f"{target} is there already. Name a new folder.")
    if not home.deployment.is_dir():
        raise InvalidInput(f"Nothing has ever served from {home.root}: there is nothing to back up.")
    with whole_folder(target) as folder, undisturbed(home):
        if home.store is None:
            freeze(home.lake, folder / "lake")
        elif (mark := home.aside / MARK).exists():
            (folder / "lake").mkdir()
            shutil.copy2(mark, folder / "lake" / MARK)
        for name in _FOLDERS:
            if (source := home.root / name).is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns(".*", "*.part"))
        for name in (_API_KEYS, _KEY_FILE) if with_secret else (_API_KEYS,):
            if (home.root / name).exists():
                shutil.copy2(home.root / name, folder / name)
        made = _described(folder, now)
        write_file(folder / _MANIFEST, msgspec.json.encode(made))
    return made


def restore(source: Path, home: Home) -> Backup:
    """Copies a backup into an empty home. Raises InvalidInput if the folder holds none, or not what it held, or the
    home is not empty."""
    try:
        noted = msgspec.json.decode((source / _MANIFEST).read_bytes(), type=Backup)
    except (OSError, *UNREADABLE) as error:
        raise InvalidInput(f"{source} holds no backup ({error}).") from None
    if home.aside.exists() or home.releases.exists():
        raise InvalidInput(f"The home {home.root} is not empty. Restore into an empty one: set MATCHLOOP_HOME.")
    if (source / "lake" / MARK).exists() != (home.store is not None):
        where = "in the home: leave lake.url empty" if home.store else "in an object store: set lake.url"
        raise InvalidInput(f"The lake of the backup {source} is {where}.")
    if _described(source, noted.created) != noted:
        raise Unavailable(f"The backup {source} does not hold what it held: files are missing or were changed.")
    home.root.mkdir(parents=True, exist_ok=True)
    for entry in sorted(source.iterdir(), key=lambda path: path.name == "releases"):  # last: then all of it is there
        if entry.is_dir():
            with whole_folder(home.root / entry.name) as folder:
                shutil.copytree(entry, folder, dirs_exist_ok=True)
        elif entry.name in (_KEY_FILE, _API_KEYS):
            shutil.copy2(entry, home.root / entry.name)
    to_disk(home.root)
    return noted


def _described(folder: Path, created: int) -> Backup:
    digest, count, size = hashlib.sha256(), 0, 0
    for path in sorted(found for found in folder.rglob("*") if found.is_file() and found.name != _MANIFEST):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()} {hashlib.sha256(content).hexdigest()}\n".encode())
        count, size = count + 1, size + len(content)
    return Backup(created, count, size, digest.hexdigest(), (folder / _KEY_FILE).exists())
