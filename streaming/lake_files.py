"""The files of a partition in the lake, named by the offsets that they hold: `<start>-<end>.parquet`, end exclusive."""

from pathlib import Path


def partition_folder(directory: Path, log_id: str, partition: int) -> Path:
    """Where a topic's directory holds a partition of a log."""
    return directory / f"log={log_id}" / f"partition={partition}"


def files(folder: Path) -> list[tuple[int, int, Path]]:
    """Start, end and path of each file, in the order of the log."""
    ranges = []
    for path in folder.glob("[0-9]*-*.parquet"):
        start, _, end = path.stem.partition("-")
        ranges.append((int(start), int(end), path))
    return sorted(ranges)


def covered(folder: Path) -> int:
    """The first offset that the files do not hold."""
    return max((end for _, end, _ in files(folder)), default=0)
