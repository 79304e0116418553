"""`matchloop settings`: the manual of the settings, and what is in effect."""

import typer

from infra.console import Json, options, show


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(settings)


def settings(context: typer.Context, as_json: Json = False) -> None:
    """Print every setting with its default and meaning, as a settings file; with --json the values in effect.

    Example: `matchloop settings > matchloop.toml`
    """
    from feature_store.contracts.addresses import without_passwords
    from infra.manual import render

    if as_json:
        values = options(context).settings().model_dump(mode="json")
        values["mlflow"]["tracking_uri"] = without_passwords(values["mlflow"]["tracking_uri"] or "") or None
        show(values, "", as_json)
    else:
        typer.echo(render(), nl=False)
