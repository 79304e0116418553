"""`matchloop features`: what the models read, and whether training and serving read the same."""

from typing import Annotated

import typer

from infra.console import Json, options, progress, show, table


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    features = typer.Typer(help="What the models read, and whether training and serving read the same.")
    features.command("list")(list_features)
    features.command()(check)
    app.add_typer(features, name="features")


def list_features(context: typer.Context, as_json: Json = False) -> None:  # noqa: ARG001 - Typer hands it over
    """List the declared features.

    Example: `matchloop features list`
    """
    from dataclasses import asdict

    from feature_store.definitions import FEATURES

    titles = ["name", "source", "dtype", "window", "ttl", "default", "meaning"]
    rows = [
        [
            *(feature.name, feature.source, feature.dtype, _days(feature.window_days), _days(feature.ttl_days)),
            *(str(feature.default), feature.meaning),
        ]
        for feature in FEATURES
    ]
    show([asdict(feature) for feature in FEATURES], table([titles, *rows]), as_json)


def check(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="Check at most this many decisions, newest first.")] = 10_000,
    as_json: Json = False,
) -> None:
    """Recompute the features that logged decisions were made with, to find training-serving skew.

    Exit code 1 if any of them differ. A user's history must be the published one plus the log up to a point that the
    process that answered can have seen; context and predictions must be what the decision's release computes from it.

    Example: `matchloop features check --limit 1000`
    """
    from feature_store.rewriting import reading
    from offline_training.evaluation.skew import DIFFERENT, OUTCOMES, check_features

    settings = options(context).settings()
    with progress("Checking features") as report, reading(settings.layout):
        found = check_features(
            settings.layout,
            settings.rewards,
            settings.redis.history_kept,
            limit,
            report,
        )
    rows = [[name, *(str(agreement.counts[outcome]) for outcome in OUTCOMES)] for name, agreement in found.items()]
    lines = [table([["feature", *OUTCOMES], *rows])]
    lines += [f"{outcome}: {meaning}" for outcome, meaning in OUTCOMES.items()]
    lines += [f"{name} differs in {', '.join(found[name].examples)}" for name in found if found[name].examples]
    content = {name: agreement.counts | {"examples": agreement.examples} for name, agreement in found.items()}
    show(content, "\n".join(lines), as_json)
    if any(agreement.counts[DIFFERENT] for agreement in found.values()):
        raise typer.Exit(1)


def _days(days: float | None) -> str:
    return "" if days is None else f"{days:g} days"
