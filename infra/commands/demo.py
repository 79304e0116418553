"""`matchloop demo`: the whole loop, from one command."""

import os
import sys
import webbrowser
from contextlib import closing
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from infra.console import Json, options, progress, show

Open = Annotated[
    bool, typer.Option("--open/--no-open", help="Open the page in a browser, if this is a terminal of a desktop.")
]


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
    open_page: Open = True,
    as_json: Json = False,
) -> None:
    """Run the whole loop on MovieLens-100K: train, serve, learn online, retrain, report.

    Visitors are simulated from what real people rated after the training data ends. Servers are started for the run,
    in a home directory of its own, and stopped again. First of all there is a page to try, the playground: while the
    demo trains it has made-up books, and then what was trained.

    With --quick that page is all there is, and it stays until `matchloop down`.

    Example: `matchloop demo --quick`, then open the address that it names
    """
    from rich.console import Console

    if quick:
        _quick(context, data, visits, open_page, as_json)
        return

    from infra.demo import BEFORE_SERVING, EXPERIMENT, VISITS, VISITS_PER_SECOND, data_set, run_loop
    from infra.demo_home import MEANWHILE, begin_anew, demo_settings
    from infra.meanwhile import Meanwhile
    from infra.stack import Stack
    from offline_training.report.report import summary_table

    given = options(context).settings()
    settings = demo_settings(given, given.home / "demo", EXPERIMENT.testers)
    config = begin_anew(settings)
    with closing(Meanwhile(given, settings.home / MEANWHILE, data_set(data), BEFORE_SERVING)) as meanwhile:
        with progress("Playground") as report:
            page = meanwhile.start(report)
        typer.echo(f"See it learn: {page}/ (made-up books while the demo trains)", err=True)
        if open_page:
            _open(page)
        settings = settings.model_copy(
            update={"serving": settings.serving.model_copy(update={"port": urlsplit(page).port})}
        )
        stack = Stack(settings, foreground=not keep)
        stage, pace = meanwhile.told(progress), VISITS_PER_SECOND
        try:
            outcome = run_loop(stack, settings, data, visits or VISITS, pace, stage, meanwhile.close, _announce)
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


def _quick(context: typer.Context, data: Path | None, visits: int | None, open_page: bool, as_json: bool) -> None:
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
    config = begin_anew(settings)
    stack = Stack(settings, foreground=False)
    try:
        with progress("Quick demo") as report:
            api = run_quick(stack, report)
    except BaseException:
        stack.stop()
        raise
    if open_page:
        _open(api)
    words = (
        f"See it learn: {api}/\n"
        f"It runs until you stop it: MATCHLOOP_CONFIG={os.path.relpath(config)} matchloop down\n"
        "The whole loop, trained on what real people rated, with a report: matchloop demo"
    )
    show({"playground": f"{api}/", "config": config}, words, as_json)


def _announce(api: str) -> None:
    typer.echo(f"It serves what was trained: {api}/ (while the demo goes on)", err=True)


def _open(page: str) -> None:
    """Has a browser show the page where somebody sits in front of one."""
    desktop = sys.platform == "darwin" or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    if sys.stderr.isatty() and desktop:
        webbrowser.open(page)
