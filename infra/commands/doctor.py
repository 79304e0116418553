"""`matchloop doctor`: what is missing on this machine, and what to do about it."""

import typer

from infra.console import Json, options, show, table


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(doctor)


def doctor(context: typer.Context, as_json: Json = False) -> None:
    """Check Python, packages, Java, servers, ports, disk and memory, and say what to do.

    Servers that the settings name are tried: a tick goes through Kafka and a key through Redis, and what is not
    allowed is named. Exits with 1 if something needs to be fixed.

    Example: `matchloop doctor`
    """
    from infra.diagnosis import diagnose

    checks = list(diagnose(options(context).settings()))
    rows = [["ok" if check.ok else "FAIL", check.name, check.found] for check in checks]
    remedies = [f"{check.name}: {check.remedy}" for check in checks if not check.ok]
    ok = not remedies
    words = "\n".join([table(rows), "", *(remedies or ["Everything that MatchLoop needs is here."])])
    show({"ok": ok, "checks": [check._asdict() for check in checks]}, words, as_json)
    if not ok:
        raise typer.Exit(1)
