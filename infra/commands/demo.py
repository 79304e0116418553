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
    quick: Annotated[
        bool, typer.Option("--quick", help="No training and no report: the playground, on made-up data, in seconds.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run the whole loop on MovieLens-100K: train, serve, learn online, retrain, report.

    Visitors are simulated from what real people rated after the training data ends. Servers are started for the run,
    in a home directory of its own, and stopped again. As soon as the API is up it has a page to try: the playground.

    With --quick that page is all there is, and it stays until `matchloop down`.

    Example: `matchloop demo --quick`, then open the address that it names
    """
    from rich.console import Console

    if quick:
        _quick(context, data, visits, as_json)
        return

    from infra.demo import EXPERIMENT, VISITS, VISITS_PER_SECOND, run_loop
    from infra.demo_home import begin_anew, demo_settings
    from infra.stack import Stack
    from offline_training.report.report import summary_table

    given = options(context).settings()
    settings = demo_settings(given, given.home / "demo", EXPERIMENT.testers)
    stack = Stack(settings, foreground=not keep)
    if stack.running:
        Stack.attach(settings).stop()
    config = begin_anew(settings)
    try:
        outcome = run_loop(stack, settings, data, visits or VISITS, VISITS_PER_SECOND, progress, _announce)
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
            f"Still running. See it learn: {outcome.api}/   MLflow: {outcome.settings.mlflow.tracking_uri}",
            f"Try: curl -s {outcome.api}/v1/recommendations -H 'content-type: application/json'{key} -d '{question}'",
            f"Then: export MATCHLOOP_CONFIG={os.path.relpath(config)}; matchloop status; matchloop down",
        ]
    else:
        words.append("The servers are stopped. `matchloop demo --keep` leaves them running, for you to call.")
    show(outcome.report, "\n".join(words), as_json)


def _quick(context: typer.Context, data: Path | None, visits: int | None, as_json: bool) -> None:
    from feature_store.contracts.errors import InvalidInput
    from infra.demo_home import begin_anew, demo_settings
    from infra.quick_demo import readers, run_quick
    from infra.stack import Stack

    if data is not None or visits is not None:
        raise InvalidInput(
            "--quick makes its own data and visits: leave --data and --visits out, or leave out --quick."
        )
    given = options(context).settings()
    settings = demo_settings(given, given.home / "demo", readers())
    stack = Stack(settings, foreground=False)
    if stack.running:
        Stack.attach(settings).stop()
    config = begin_anew(settings)
    try:
        with progress("Quick demo") as report:
            api = run_quick(stack, report)
    except BaseException:
        stack.stop()
        raise
    words = (
        f"See it learn: {api}/\n"
        f"It runs until you stop it: MATCHLOOP_CONFIG={os.path.relpath(config)} matchloop down\n"
        "The whole loop, trained on what real people rated, with a report: matchloop demo"
    )
    show({"playground": f"{api}/", "config": config}, words, as_json)


def _announce(api: str) -> None:
    typer.echo(f"See it learn: {api}/ (while the demo goes on)", err=True)
