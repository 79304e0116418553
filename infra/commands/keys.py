"""`matchloop keys`: the API's keys, and what each one may do."""

import getpass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.console import Json, options, show, table

if TYPE_CHECKING:
    from infra.settings import Settings
    from online_serving.keys import Key, KeyFile

_SCOPES = "recommend, feedback, merge, catalogue or admin (everything); several: name it again."
_DAY_MS = 86_400_000


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    keys = typer.Typer(help="Create, list and revoke keys of the API; processes that run follow within a second.")
    keys.command()(create)
    keys.command(name="list")(list_keys)
    keys.command()(revoke)
    app.add_typer(keys, name="keys")


def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What it is for.", metavar="NAME")],
    scope: Annotated[list[str], typer.Option(help=f"What it may do: {_SCOPES}")],
    rate: Annotated[
        str | None, typer.Option(help="Requests that a process takes, such as 100/second; else serving.rate_limit.")
    ] = None,
    days: Annotated[float | None, typer.Option(min=0, help="How long it counts; else until it is revoked.")] = None,
    as_json: Json = False,
) -> None:
    """Create a key and print it: it is not kept, only a hash of it.

    From the first one on, requests need a key. To rotate one: create another, give it to whoever has the old one, and
    revoke that.

    Example: `matchloop keys create shop --scope recommend --scope feedback`
    """
    from feature_store.contracts.clock import SystemClock

    settings = options(context).settings()
    now = SystemClock().now_ms()
    expires = None if days is None else now + int(days * _DAY_MS)
    made, secret = _file(settings).create(name, _scopes(scope), now, expires, _rate(rate))
    _note(settings, f"keys create {made.id} ({name}): {', '.join(made.scopes)}")
    show({**_described(made), "key": secret}, secret, as_json)


def list_keys(context: typer.Context, as_json: Json = False) -> None:
    """List the keys, oldest first.

    Example: `matchloop keys list`
    """
    found = _file(options(context).settings()).read()
    lines = [
        [key.id, key.name, ", ".join(key.scopes), _date(key.created), _date(key.expires) or "never", key.rate or ""]
        for key in found
    ]
    heads = ["id", "for", "scopes", "made", "expires", "rate"]
    words = table([heads, *lines]) if found else "There are no keys yet. `matchloop keys create` makes one."
    show([_described(key) for key in found], words, as_json)


def revoke(
    context: typer.Context,
    key: Annotated[str, typer.Argument(help="Its id, as `matchloop keys list` says it.", metavar="ID")],
    as_json: Json = False,
) -> None:
    """Have a key count no more.

    Example: `matchloop keys revoke 1a2b3c4d`
    """
    settings = options(context).settings()
    gone = _file(settings).revoke(key)
    _note(settings, f"keys revoke {gone.id} ({gone.name})")
    show(_described(gone), f"Key {gone.id} ({gone.name}) is refused from now on.", as_json)


def _file(settings: "Settings") -> "KeyFile":
    from online_serving.keys import FILE, KeyFile

    return KeyFile(settings.serving.keys_file or settings.home / FILE)


def _scopes(names: list[str]) -> Any:
    from feature_store.contracts.errors import InvalidInput
    from online_serving.keys import Scope

    for name in names:
        if name not in list(Scope):
            raise InvalidInput(f"{name!r} is no scope. There are {', '.join(Scope)}.")
    return [Scope(name) for name in dict.fromkeys(names)]


def _rate(text: str | None) -> str | None:
    import re

    from feature_store.contracts.errors import InvalidInput
    from online_serving.settings import RATE

    if text is not None and not re.match(RATE, text):
        raise InvalidInput(f"--rate is {text!r}. It is a number and second, minute, hour or day, such as 100/second.")
    return text


def _note(settings: "Settings", what: str) -> None:
    from feature_store.contracts.clock import SystemClock
    from online_serving.audit import AuditLog

    AuditLog(settings.home, SystemClock()).note(f"user {getpass.getuser()}", what)


def _described(key: "Key") -> dict[str, Any]:
    return {"id": key.id, "name": key.name, "scopes": key.scopes, "created": key.created, "expires": key.expires}


def _date(time: int | None) -> str:
    return "" if time is None else f"{datetime.fromtimestamp(time / 1000, UTC):%Y-%m-%d}"
