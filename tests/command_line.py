"""`matchloop` within the test process."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from typer.testing import CliRunner

from infra.cli import app


def matchloop(*arguments: str, **variables: str) -> str:
    """What a command writes to standard output. Raises what ended it. variables: of its environment."""
    with _logging_kept():
        done = CliRunner().invoke(app, list(arguments), env=variables)
    if done.exception is not None:
        raise done.exception
    return done.stdout


@contextmanager
def _logging_kept() -> Iterator[None]:
    """A command sends the logs of its process to a standard error that is gone when it ends: later tests' go on to
    where they went before."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = handlers
        root.setLevel(level)
