"""The lake as a run reads it: what was in it at one moment, whatever comes in or is rewritten afterwards."""

import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import msgspec

from feature_store.durable import whole_folder
from feature_store.lake_path import LakePath, fetch
from offline_training.data.lake import parquet_files
from streaming.lake_files import partition_folders, stretches

_OF_LOG = ("events", "catalogue")


class Frozen(msgspec.Struct, frozen=True):
    """What was in the lake."""

    files: int
    size: int  # bytes
    digest: str  # of the files' names and sizes


def freeze(lake: LakePath, path: Path) -> Frozen:
    """Makes `path` hold the lake's files of now. Raises LakeDamaged if the log has a hole there."""
    digest, count, size = hashlib.sha256(), 0, 0
    with whole_folder(path) as folder:
        for source in sorted(found.name for found in lake.glob("[!.]*") if found.is_dir()):
            for file in _files(lake, source):
                name = PurePosixPath(*file.parts[len(lake.parts) :])
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                fetch(file, folder / name)
                bytes_ = (folder / name).stat().st_size
                digest.update(f"{name.as_posix()} {bytes_}\n".encode())
                count, size = count + 1, size + bytes_
    return Frozen(count, size, digest.hexdigest()[:16])


def _files(lake: LakePath, source: str) -> Sequence[LakePath]:
    if source not in _OF_LOG:
        return parquet_files(lake / source)
    return [stretch.path for *_, folder in partition_folders(lake, source) for stretch in stretches(folder)]
