"""The lake as a run reads it: what was in it at one moment, whatever comes in or is rewritten afterwards."""

import contextlib
import hashlib
import os
import shutil
from pathlib import Path

import msgspec

from feature_store.durable import whole_folder
from offline_training.data.lake import parquet_files
from streaming.lake_files import partition_folders, stretches

_OF_LOG = ("events", "catalogue")


class Frozen(msgspec.Struct, frozen=True):
    """What was in the lake."""

    files: int
    size: int  # bytes
    digest: str  # of the files' names and sizes


def freeze(lake: Path, path: Path) -> Frozen:
    """Makes `path` hold the lake's files of now. Files of a lake are never changed, only replaced, so that hard links
    do; where the file system has none they are copied. Raises LakeDamaged if the log has a hole there."""
    digest, count, size = hashlib.sha256(), 0, 0
    with whole_folder(path) as folder:
        for source in sorted(found for found in lake.glob("[!.]*") if found.is_dir()):
            for file in _files(lake, source.name):
                name = file.relative_to(lake)
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                _link(file, folder / name)
                bytes_ = (folder / name).stat().st_size
                digest.update(f"{name.as_posix()} {bytes_}\n".encode())
                count, size = count + 1, size + bytes_
    return Frozen(count, size, digest.hexdigest()[:16])


def _files(lake: Path, source: str) -> list[Path]:
    if source not in _OF_LOG:
        return parquet_files(lake / source)
    return [stretch.path for *_, folder in partition_folders(lake, source) for stretch in stretches(folder)]


def _link(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            target.unlink()
        shutil.copy2(file, target)
