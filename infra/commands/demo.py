"""`matchloop demo`: the whole loop, from one command."""

import os
from pathlib import Path
from typing import Annotated

import typer

from infra.console import Json, options, progress, show


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(demo)


def demo(
    context: typer.Context,
    data: Annotated[
        Path | None, typer.Option(help="Directory in the import format; see `matchloop import --help`.")
    ] = None,
    visits: Annotated[
        int | None,
        typer.Option(min=1, help="Recommendations to ask for; default: 5,000.", show_default=False),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep everything running afterwards.")] = False,
    as_json: Json = False,
) -> None:
    """Run the whole loop on MovieLens-100K: train, serve, learn online, retrain, report.

    Visitors are simulated from what real people rated after the training data ends. Servers are started for the run,
    in a home directory of its own, and stopped again.

    Example: `matchloop demo`, then open the report.html that it names
    """
    from rich.console import Console

    from infra.demo import VISITS, VISITS_PER_SECOND, begin_anew, demo_settings, run_loop
    from infra.stack import Stack
    from offline_training.report.report import summary_table

    given = options(context).settings()
    settings = demo_settings(given, given.home / "demo")
    stack = Stack(settings, foreground=not keep)
    if stack.running:
        Stack.attach(settings).stop()
    config = begin_anew(settings)
    try:
        outcome = run_loop(stack, settings, data, visits or VISITS, VISITS_PER_SECOND, progress)
    except BaseException:
        stack.stop()
        raise
    if not keep:
        stack.stop()
    if not as_json:
        Console(width=max(100, min(Console().width, 140))).print(summary_table(outcome.report))
    words = [f"Report: {outcome.page}"]
    if keep:
        question = '{"user_id": "405", "slate_size": 3}'
        key = ' -H "authorization: Bearer $MATCHLOOP_SERVING_API_KEY"' if outcome.settings.serving.api_key else ""
        words += [
            f"Still running. API: {outcome.api}/docs   MLflow: {outcome.settings.mlflow.tracking_uri}",
            f"Try: curl -s {outcome.api}/v1/recommendations -H 'content-type: application/json'{key} -d '{question}'",
            f"Then: export MATCHLOOP_CONFIG={os.path.relpath(config)}; matchloop status; matchloop down",
        ]
    else:
        words.append("The servers are stopped. `matchloop demo --keep` leaves them running, for you to call.")
    show(outcome.report, "\n".join(words), as_json)
