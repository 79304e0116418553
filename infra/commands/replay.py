"""`matchloop replay`: other settings, another release or a baseline on the log of last week."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.console import Json, moment, options, progress, reward_range, show, table

if TYPE_CHECKING:
    from feature_store.contracts.experiments import Experiment
    from feature_store.lake_path import LakePath
    from infra.settings import Settings
    from offline_training.off_policy.estimators import OffPolicyEvaluation
    from offline_training.off_policy.rejection import Replayed

_PAGE = "replay.html"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(replay)


def replay(
    context: typer.Context,
    candidate: Annotated[
        str,
        typer.Option(
            help="TOML file of a candidate, or the id of a release to try under the present settings. Of an imported "
            "log: uniform, always:ACTION, target, or learn:ucb (thompson, epsilon-greedy)."
        ),
    ],
    log: Annotated[str | None, typer.Option(help="An imported log in place of one's own: `import --as log`.")] = None,
    rewards: Annotated[
        str | None, typer.Option(help="Of an imported log: the range of rewards, LEAST..MOST, for bounds beside.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--from", help="From this time on: ISO time (UTC) or ms since 1970.")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", help="Up to this time, exclusive.")] = None,
    variant: Annotated[
        str | None, typer.Option(help="Only decisions that the log calls so, such as demo=online-matching.")
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="Replay so many decisions, evenly over the time.")] = 20_000,
    out: Annotated[Path | None, typer.Option(help="Where the page is written; else in the home directory.")] = None,
    as_json: Json = False,
) -> None:
    """Estimate what other settings, another release or a baseline would have earned, from the log in the lake.

    Logged requests go through the serving pipeline of the candidate as of their moments: its chances of what was shown
    are computed exactly, and off-policy estimators weigh what was shown by them. Exit code 1 if the log cannot tell,
    with the reason.

    A candidate is a TOML file: name, release, mode (off, explore, greedy) or baseline (frozen, popularity), and tables
    [bandit], [serving] (what a variant of an experiment may set there, but for slate_size) and [rules] (exclude_items,
    exclude_categories). What it leaves out is as served.

    Example: `matchloop replay --candidate bolder.toml --from 2026-01-24 --variant demo=online-matching`
    """
    import msgspec

    from feature_store.rewriting import reading
    from offline_training.replay.candidate import candidate as read_candidate
    from offline_training.replay.replay import Serving, Stretch
    from offline_training.replay.replay import replay as run
    from offline_training.report.replay_page import render, story

    settings = options(context).connected_settings()
    if log is not None:
        _imported(settings.layout.lake, log, candidate, rewards, as_json)
        return
    tried = read_candidate(candidate, settings.bandit, settings.serving)
    stretch = Stretch(
        None if since is None else moment("--from", since), None if until is None else moment("--to", until), variant
    )
    serving = Serving(
        settings.serving, settings.bandit, settings.rewards, _experiments(settings), settings.redis.shown_kept
    )
    with progress("Replaying") as report, reading(settings.layout):
        found = run(settings.layout, serving, tried, stretch, report, most=most)
    page = settings.home / _PAGE if out is None else out
    page.write_text(render(found), encoding="utf-8")
    words = [*_refused(found.refusal), *story(found), _estimates(found.evaluation), f"The page is {page}."]
    show({**msgspec.to_builtins(found), "refused": found.refusal, "page": str(page)}, "\n".join(words), as_json)
    if found.refusal is not None:
        raise typer.Exit(1)


def _imported(lake: "LakePath", log: str, policy: str, rewards: str | None, as_json: bool) -> None:
    import msgspec

    from offline_training.data.foreign_log import log_file
    from offline_training.off_policy.foreign import LEARN, read_log, value_of, value_of_learner

    within = None if rewards is None else reward_range("--rewards", rewards)
    read = read_log(log_file(lake, log))
    if policy.startswith(LEARN):
        _learnt(value_of_learner(read, policy), log, as_json)
        return
    found = value_of(read, policy, within)
    logged = float(read.rewards.mean())
    first = (
        f"{policy} on {log}: {found.decisions:,} rows, which earned {logged:.4g} each. Read first: {found.headline}."
    )
    words = [*_refused(found.refusal), first, _estimates(found)]
    result = {"policy": policy, "log": log, "logged": logged, "evaluation": msgspec.to_builtins(found)}
    show({**result, "refused": found.refusal}, "\n".join(words), as_json)
    if found.refusal is not None:
        raise typer.Exit(1)


def _learnt(found: "Replayed", log: str, as_json: bool) -> None:
    import msgspec

    value = found.value
    spread = "" if value.low is None or value.high is None else f" ({value.low:.4g} to {value.high:.4g})"
    words = (
        f"{found.learner} on {log}: {value.value:.4g}{spread} per event, on {found.accepted:,} of {found.events:,} "
        "that it would have had itself."
    )
    show(msgspec.to_builtins(found), "\n".join([*_refused(found.refusal), words]), as_json)
    if found.refusal is not None:
        raise typer.Exit(1)


def _refused(reason: str | None) -> list[str]:
    return [] if reason is None else [f"Refused: {reason}"]


def _estimates(found: "OffPolicyEvaluation") -> str:
    from offline_training.report import text

    rows = [["ESTIMATOR", "REWARD PER 1,000", "EFFECTIVE", "LARGEST WEIGHT", "NEVER SHOWN"]]
    for estimate in found.estimates:
        support = estimate.overlap
        unsupported = "" if support.unsupported_share is None else f"{support.unsupported_share:.1%}"
        value = text.interval(text.per_thousand(estimate.value))
        rows.append(
            [estimate.estimator, value, f"{support.effective_size:,.0f}", f"{support.max_weight:,.1f}", unsupported]
        )
    if found.bounds is not None:
        for name, bound in (
            ("empirical Bernstein", found.bounds.empirical_bernstein),
            ("betting", found.bounds.betting),
        ):
            rows.append([f"IPS, {name} bounds", text.interval(text.per_thousand(bound)), "", "", ""])
    return table(rows)


def _experiments(settings: "Settings") -> "dict[str, Experiment]":
    """Those that the online store knows of, by name; without it the log's variants count as the present settings."""
    import redis

    from feature_store.contracts.errors import Unavailable
    from feature_store.online.store import OnlineStore
    from infra.connections import redis_client

    try:
        with redis_client(settings) as client:
            return OnlineStore(client, settings.redis).experiments.read().by_name
    except (Unavailable, redis.RedisError):
        return {}
