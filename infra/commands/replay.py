"""`matchloop replay`: other settings, another release or a baseline on the log of last week."""

from pathlib import Path
from typing import Annotated

import typer

from infra.console import Json, moment, options, progress, show, table

_PAGE = "replay.html"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(replay)


def replay(
    context: typer.Context,
    candidate: Annotated[
        str, typer.Option(help="TOML file of a candidate, or the id of a release to try under the present settings.")
    ],
    since: Annotated[
        str | None, typer.Option("--from", help="From this time on: ISO time (UTC) or ms since 1970.")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", help="Up to this time, exclusive.")] = None,
    variant: Annotated[str | None, typer.Option(help="Only decisions of this variant, one that explores.")] = None,
    most: Annotated[int, typer.Option(min=1, help="Replay so many decisions, evenly over the time.")] = 20_000,
    out: Annotated[Path | None, typer.Option(help="Where the page is written; else in the home directory.")] = None,
    as_json: Json = False,
) -> None:
    """Estimate what other settings, another release or a baseline would have earned, from the log in the lake.

    Logged requests go through the serving pipeline of the candidate as of their moments: its chances of what was shown
    are computed exactly, and off-policy estimators weigh what was shown by them. Exit code 1 if the log cannot tell,
    with the reason.

    A candidate is a TOML file: name, release, mode (off, explore, greedy) or baseline (frozen, popularity), and tables
    [bandit], [serving] (candidates, cluster_candidates, list_candidates, fresh_candidates, repeat_shown) and [rules]
    (exclude_items, exclude_categories). What it leaves out is as served.

    Example: `matchloop replay --candidate bolder.toml --from 2026-01-24 --variant online-matching`
    """
    import msgspec

    from feature_store.home import Home
    from feature_store.rewriting import reading
    from offline_training.replay.candidate import candidate as read_candidate
    from offline_training.replay.replay import Serving, Stretch
    from offline_training.replay.replay import replay as run
    from offline_training.report import text
    from offline_training.report.replay_page import render, story

    settings = options(context).settings()
    tried = read_candidate(candidate, settings.bandit, settings.serving)
    stretch = Stretch(
        None if since is None else moment("--from", since), None if until is None else moment("--to", until), variant
    )
    serving = Serving(
        settings.serving, settings.bandit, settings.rewards, settings.experiment, settings.redis.shown_kept
    )
    with progress("Replaying") as report, reading(settings.home):
        found = run(Home(settings.home), serving, tried, stretch, report, most=most)
    page = settings.home / _PAGE if out is None else out
    page.write_text(render(found), encoding="utf-8")
    rows = [["ESTIMATOR", "REWARD PER 1,000", "EFFECTIVE", "LARGEST WEIGHT", "NEVER SHOWN"]]
    for estimate in found.evaluation.estimates:
        support = estimate.overlap
        rows.append(
            [
                estimate.estimator,
                text.interval(text.per_thousand(estimate.value)),
                f"{support.effective_size:,.0f}",
                f"{support.max_weight:,.1f}",
                f"{support.unsupported_share or 0:.1%}",
            ]
        )
    refused = [] if found.refusal is None else [f"Refused: {found.refusal}"]
    words = [*refused, *story(found), table(rows), f"The page is {page}."]
    show({**msgspec.to_builtins(found), "refused": found.refusal, "page": str(page)}, "\n".join(words), as_json)
    if found.refusal is not None:
        raise typer.Exit(1)
