"""The command line: `matchloop`. Each command lives in infra/commands and imports what it needs when it runs."""

import errno
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from feature_store.contracts.errors import MatchLoopError
from infra.commands import (
    backup,
    bench,
    data,
    deadletter,
    demo,
    doctor,
    experiment,
    features,
    gc,
    keys,
    lake,
    learning,
    online,
    overview,
    processes,
    recommend,
    recover,
    release,
    replay,
    settings,
    stack,
    state,
    training,
    users,
)
from infra.console import Options
from infra.extras import remedy
from infra.telemetry import LEVELS, log_to_stderr, tell_failure

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NO_RIGHT = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
_TERMINATED = 128 + signal.SIGTERM

app = typer.Typer(
    name="matchloop",
    help="A recommender that learns from user behaviour in under a second.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for module in (
    *(
        demo,
        stack,
        data,
        lake,
        training,
        release,
        replay,
        gc,
        backup,
        recover,
        online,
        recommend,
        overview,
        experiment,
        learning,
        state,
    ),
    *(features, users, keys, deadletter, bench, doctor, settings, processes),
):
    module.register(app)


@app.callback()
def before(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help="Settings file; see `matchloop settings`.")] = None,
    log_level: Annotated[str, typer.Option(help=f"One of {', '.join(LEVELS)}.")] = "warning",
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
) -> None:
    """Options that stand before the command."""
    if log_level not in LEVELS:
        raise typer.BadParameter(f"{log_level!r} is not one of {', '.join(LEVELS)}.", param_hint="--log-level")
    context.obj = Options(config, debug, log_level)
    log_to_stderr(log_level)


def main() -> None:
    """Runs the command line. An error is one line on standard error and exit code 1."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app(prog_name="matchloop")
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        tell_failure(in_words(error))
        sys.exit(1)


def in_words(error: Exception) -> str:
    """An error as one line that says what to do."""
    if isinstance(error, MatchLoopError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and (missing := remedy(error.name)):
        return missing
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return f"No space is left on the disk{_of(error)}. Free some, or set MATCHLOOP_HOME to a directory elsewhere."
    if isinstance(error, OSError) and error.errno in _NO_RIGHT:
        return (
            f"This user may not do that{_of(error)} ({error.strerror}). Give the right to, or set MATCHLOOP_HOME to a "
            "directory of yours."
        )
    return f"unexpected {type(error).__name__}: {error} (`matchloop --debug ...` shows where)"


def _of(error: OSError) -> str:
    return f": {error.filename}" if error.filename else ""


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Ends as Ctrl-C would, so that what was started is stopped."""
    del number, frame
    sys.exit(_TERMINATED)


if __name__ == "__main__":
    main()
