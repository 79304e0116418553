"""`matchloop train` and `retrain`: from the lake to a release that serves."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.console import Json, options, progress, show, table

if TYPE_CHECKING:
    from infra.settings import Settings
    from offline_training.jobs.job import TrainResult

Until = Annotated[
    datetime | None,
    typer.Option(help="Train only on imported interactions before this time (UTC); later ones evaluate the release."),
]
BreakLock = Annotated[
    bool, typer.Option("--break-lock", help="Take the place of another training, which then ends without promoting.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Begin anew, also where an interrupted run could go on.")]
Stale = Annotated[
    bool,
    typer.Option("--stale", help="Train and activate also if the sink or the updater is dead or far behind the log."),
]
Override = Annotated[
    str | None,
    typer.Option(help="Why to train and serve although data has shrunk or the gate speaks against it; it is kept."),
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        help="Of a retrain: begin from scratch, or as the weights of the champion; else as training.start says.",
    ),
]
Excluded = Annotated[Path | None, typer.Option(help="File of item ids, one per line, whose imported data is left out.")]


_TRAIN = """Train a first release from the lake, register it in MLflow and serve it.

Discards what the bandit has learnt online.

The servers must be running: `matchloop up`. One training at a time: a second one says whose is under way.

What was interrupted within the last day goes on when the same is asked for again: runs/ of the home has its steps.

Example: `matchloop train --until 2026-01-31`
"""
_RETRAIN = """Train a new release from the lake, including what happened online, and swap it in under traffic.

The new release's bandit starts from what the old one has learnt (V1D3). With `--from champion` its models begin as
those of the old one, too: a fraction of the passes, and the gate judges it alike. One training at a time: a second one
says whose is under way.

What was interrupted within the last day goes on when the same is asked for again, from the lake as it was then:
runs/ of the home has its steps.

Example: `matchloop retrain --json`
"""


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("train", help=_TRAIN)(run)
    app.command("retrain", help=_RETRAIN)(run)


def run(
    context: typer.Context,
    until: Until = None,
    exclude_items: Excluded = None,
    start: From = None,
    fresh: Fresh = False,
    stale: Stale = False,
    override: Override = None,
    break_lock: BreakLock = False,
    as_json: Json = False,
) -> None:
    """Either of them, as it was called."""
    from infra.notification import telling_of_failures
    from infra.training import training_job
    from offline_training.jobs.retrain import retrain
    from offline_training.jobs.train import train

    called = str(context.info_name)
    settings = _beginning(options(context).connected_settings(), called, start)
    left_out = _lines(exclude_items)
    with (
        telling_of_failures(settings.notify, str(settings.home)),
        training_job(settings, called, _milliseconds(until), left_out, break_lock, fresh, stale, override) as job,
        progress(f"{called.capitalize()}ing") as report,
    ):
        result = (train if called == "train" else retrain)(job, report)
    _tell(settings, result)
    _show(result, as_json)


def _beginning(settings: "Settings", called: str, start: str | None) -> "Settings":
    """The settings with what a retrain is to begin as. Raises InvalidInput for what there is not."""
    from feature_store.contracts.errors import InvalidInput
    from offline_training.settings import Start

    if start is None:
        return settings
    if start not in set(Start) or called == "train":
        raise InvalidInput(f"--from {start!r}: a retrain begins from {' or '.join(Start)}, and a first training anew.")
    training = settings.training.model_copy(update={"start": Start(start)})
    return settings.model_copy(update={"training": training})


def _milliseconds(time: datetime | None) -> int | None:
    return None if time is None else int(time.replace(tzinfo=time.tzinfo or UTC).timestamp() * 1000)


def _lines(file: Path | None) -> frozenset[str]:
    if file is None:
        return frozenset()
    from feature_store.contracts.errors import InvalidInput

    try:
        return frozenset(file.read_text(encoding="utf-8").splitlines()) - {""}
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"The file of excluded items {file} cannot be read: {error}.") from None


def _tell(settings: "Settings", result: "TrainResult") -> None:
    from infra.notification import PROMOTION, notify

    notify(settings.notify, str(settings.home), PROMOTION, f"Release {result.release} serves.", result.release)


def _show(result: "TrainResult", as_json: bool) -> None:
    rows = [[name, f"{value:.4f}"] for name, value in sorted(result.metrics.items())]
    words = f"Release {result.release} serves, with namespace {result.namespace}."
    if result.not_compared:
        words += f"\nThe gate did not compare it with the release before, which cannot be read: {result.not_compared}"
    show(
        {
            "release": result.release,
            "namespace": result.namespace,
            "metrics": result.metrics,
            "not_compared": result.not_compared,
        },
        f"{table(rows)}\n\n{words}" if rows else words,
        as_json,
    )
