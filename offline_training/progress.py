"""How long work reports where it stands."""

from collections.abc import Callable

Progress = Callable[[float, str], None]
"""Takes the fraction done, 0 to 1, and what is being done."""


def silent(fraction: float, message: str) -> None:
    """A Progress that tells nobody."""


def section(progress: Progress, start: float, end: float) -> Progress:
    """A Progress for one part of a job: its 0..1 is the job's start..end."""
    return lambda fraction, message: progress(start + (end - start) * fraction, message)
