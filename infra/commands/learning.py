"""`matchloop learning`: the switch that stops learning at once."""

from enum import StrEnum
from typing import Annotated

import typer

from infra.console import Json, options, show


class Switch(StrEnum):
    """Where the switch stands."""

    ON = "on"
    OFF = "off"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(learning)


def learning(
    context: typer.Context,
    switch: Annotated[Switch, typer.Argument(help="on or off.")],
    as_json: Json = False,
) -> None:
    """Stop the bandit's learning at once, or resume it. Decisions and feedback are logged either way.

    The switch is a record in the log, so that replays and the next release obey it at the same point.

    Example: `matchloop learning off`
    """
    from feature_store.contracts.clock import SystemClock
    from infra.connections import event_log
    from streaming.switch import set_learning

    settings = options(context).connected_settings()
    set_learning(event_log(settings), switch is Switch.ON, SystemClock())
    show({"learning": switch is Switch.ON}, f"Learning is {switch} from this point of the log on.", as_json)
