"""A replay in words: for the terminal, and as a page."""

from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from offline_training.replay.replay import Replay
from offline_training.report import text
from offline_training.report.figures import estimates

_TEMPLATE = "replay.html.j2"
_ESTIMATED, _READ, _LOGGED = "#5f6b7a", "#0b6fb8", "#d9730d"


def story(found: Replay) -> list[str]:
    """What a replay comes to, in sentences."""
    logged = text.interval(text.per_thousand(found.logged))
    if found.refusal is not None or found.difference is None:
        return [f"This log cannot tell. What was logged earned {logged} per 1,000 recommendations."]
    value = text.interval(text.per_thousand(found.evaluation.read_first().value))
    change = text.per_thousand(found.difference)
    sure = found.difference.excludes_zero
    better = "more" if change.value > 0 else "less"
    claim = f"surely {better} than" if sure else "which cannot be told from"
    return [
        f"{found.candidate} would have earned {value} per 1,000 recommendations, {claim} what was logged, {logged}.",
        f"The difference is {text.interval(change, signed=True)}, paired by user.",
    ]


def render(found: Replay) -> str:
    """The page: self-contained HTML with an inline plot."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    read_first = None if found.refusal else found.evaluation.headline
    rows = [
        (e.estimator, text.per_thousand(e.value), _READ if e.estimator == read_first else _ESTIMATED)
        for e in found.evaluation.estimates
    ]
    rows.append(("the log itself", text.per_thousand(found.logged), _LOGGED))
    plot = estimates("replay", rows, "reward per 1,000 recommendations, 95 % interval")
    return environment.get_template(_TEMPLATE).render(
        found=found,
        text=text,
        story=story(found),
        first=_day(found.first),
        last=_day(found.last),
        plot=Markup(plot),  # noqa: S704  made here, of escaped texts
    )


def _day(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
