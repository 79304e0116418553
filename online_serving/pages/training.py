"""What is being trained while an installation serves something else meanwhile: whoever trains writes it into the home,
and the playground tells it."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

FILE = "training.json"


@dataclass(frozen=True, slots=True)
class Training:
    """A training on its way."""

    of: str  # what is learnt from
    step: int  # 1 to steps
    steps: int
    name: str  # of the step
    fraction: float  # of the step that is done
    message: str


def tell(home: Path, training: Training) -> None:
    """Notes how far it is."""
    draft = home / f"{FILE}.new"
    draft.write_bytes(msgspec.json.encode(training))
    draft.replace(home / FILE)


def told(home: Path) -> Training | None:
    """What was noted last; None if nothing was."""
    try:
        return msgspec.json.decode((home / FILE).read_bytes(), type=Training)
    except FileNotFoundError:
        return None
