"""What the schedule remembers, for itself when it starts again and for `matchloop status`."""

from pathlib import Path

import msgspec

from feature_store.durable import write_file

INTERRUPTED = "interrupted"


class Last(msgspec.Struct, frozen=True):
    """A retrain that has ended."""

    began: int  # ms since the epoch
    ended: int
    reason: str  # why it was due
    outcome: str  # promoted, failed or interrupted
    words: str  # the release, or what went wrong


class Notes(msgspec.Struct, frozen=True):
    """How things stand."""

    cron: str | None = None
    after: int | None = None  # interactions
    next: int | None = None  # ms since the epoch, by the calendar
    running_since: int | None = None
    reason: str = ""  # of what runs
    last: Last | None = None
    read: dict[str, int] = {}  # up to where the log had been read when a retrain was last begun


def schedule_folder(home: Path) -> Path:
    """Where a home's schedule keeps its notes and what its retrains say."""
    return home / "schedule"


def load(folder: Path) -> Notes:
    """The notes, empty ones if there are none that can be read."""
    try:
        return msgspec.json.decode((folder / "notes.json").read_bytes(), type=Notes)
    except (OSError, msgspec.MsgspecError):
        return Notes()


def save(folder: Path, notes: Notes) -> None:
    """Writes them, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / "notes.json", msgspec.json.format(msgspec.json.encode(notes)))
