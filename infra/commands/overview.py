"""`matchloop overview`: what has come of an installation."""

from typing import TYPE_CHECKING, Annotated

import typer

from infra.console import Json, options, show, table

if TYPE_CHECKING:
    from infra.overview import Overview
    from offline_training.experiment.trend import Earned, Trend


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(overview)


def overview(
    context: typer.Context,
    days: Annotated[float, typer.Option(min=0.01, help="How far back from now variants and new items count.")] = 14.0,
    as_json: Json = False,
) -> None:
    """Say what variants earned, what became of new items, which releases serve or were held back, what experiments say.

    The dashboard shows the same, renewed every minute while somebody looks.

    Example: `matchloop overview --days 7`
    """
    from feature_store.contracts.clock import SystemClock
    from infra.overview import overview as run

    found = run(options(context).connected_settings(), days, SystemClock().now_ms())
    show(found, _in_words(found), as_json)


def _in_words(found: "Overview") -> str:
    parts = [found.nothing or "" if found.trend is None else _earned(found.trend)]
    for one in found.releases:
        held = "; ".join(one.verdict.reasons) if one.verdict and one.verdict.reasons else ""
        parts.append(f"Release {one.id}: {', '.join(one.roles)}." + (f" The gate said: {held}" if held else ""))
    parts += [f"Experiment {one.name}, {one.share:.1%} of the users: {one.verdict}" for one in found.experiments]
    return "\n\n".join(parts)


def _earned(trend: "Trend") -> str:
    rows = [["VARIANT", "USERS", "SLATES", "PER 1,000", "IN TIME"]]
    for one in trend.variants:
        counts = [f"{one.whole.users:,}", f"{one.whole.decisions:,}"]
        rows.append([one.variant, *counts, _per_thousand(one.whole), " ".join(map(_value, one.windows))])
    new = trend.new_items
    times, liked = (" / ".join(map(str, one)) for one in (new.discovered, new.discovered.values()))
    return f"{table(rows)}\n\nNew items: {new.items}; shown: {new.shown}; liked at least {times} times: {liked}."


def _per_thousand(earned: "Earned") -> str:
    found = earned.per_thousand
    if found is None or found.low is None or found.high is None:
        return _value(earned)
    return f"{found.value:.1f} ({found.low:.1f} to {found.high:.1f})"


def _value(earned: "Earned") -> str:
    return "-" if earned.per_thousand is None else f"{earned.per_thousand.value:.1f}"
