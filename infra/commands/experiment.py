"""`matchloop experiment`: A/B tests as objects that live while the API serves, and reports of them."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.console import Json, options, show, table

if TYPE_CHECKING:
    from feature_store.contracts.experiments import Experiment
    from infra.settings import Settings
    from offline_training.experiment.analysis import ExperimentReport
    from offline_training.experiment.lifecycle import Base

File = Annotated[Path, typer.Argument(help="TOML file of the experiment.")]
Name = Annotated[str, typer.Argument(help="Name of the experiment.")]
Share = Annotated[float, typer.Argument(min=0, max=1, help="Share of the layer's users, 0.1 for a tenth.")]

_DAY_MS = 86_400_000


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    group = typer.Typer(help="Compare variants on real users: make, start, ramp, read and stop A/B tests.")
    for command in (plan, create, start, ramp, status, report, stop, list_all):
        group.command("list" if command is list_all else None)(command)
    app.add_typer(group, name="experiment")


def plan(
    context: typer.Context,
    file: File,
    days: Annotated[float, typer.Option(min=0.01, help="How much of the log to plan from, back from now.")] = 14.0,
    power: Annotated[float, typer.Option(min=0.5, max=0.99, help="Chance that the minimum effect is found.")] = 0.8,
    as_json: Json = False,
) -> None:
    """Say how many users an experiment needs, and how many days they take to come, from the log.

    Example: `matchloop experiment plan wider.toml`
    """
    from feature_store.contracts.clock import SystemClock
    from feature_store.rewriting import reading
    from infra.experiment_file import read_plan
    from infra.experiment_report import recommended
    from offline_training.experiment.outcomes import everybody
    from offline_training.experiment.planning import power as needed

    settings, planned = options(context).settings(), read_plan(file)
    now = SystemClock().now_ms()
    with reading(settings.layout):
        past = everybody(settings.layout.lake, recommended(settings), now - int(days * _DAY_MS), settings.rewards)
    found = needed(planned, past, power)
    words = (
        f"{found.metric} is {found.value:.4g}. To find a change of {found.minimum_effect:.1%} with a chance of "
        f"{found.power:.0%}: {found.users_at_any_look:,} users if looked at at any time ({found.days:.1f} days of all "
        f"traffic), {found.users:,} for a single look at the end. Set planned_users = {found.users_at_any_look}."
    )
    show(found, words, as_json)


def create(context: typer.Context, file: File, as_json: Json = False) -> None:
    """Make an experiment from a file; it assigns nobody until it is started.

    A variant changes what a request reads: a release, and settings of [serving] and [bandit]. The first is the control.
    unit = "item" parts the catalogue among the variants, too, and tells what each does to its items; allocation =
    "thompson" has ramps move traffic to better variants.

    Example: `matchloop experiment create wider.toml` with

        name = "wider"
        hypothesis = "A wider bonus finds more that people like."
        guardrails = ["latency_ms"]

        [variants.now]

        [variants.wide]
        bandit = { alpha = 2.0 }
    """
    from feature_store.contracts.clock import SystemClock
    from infra.experiment_file import read_plan
    from infra.site import site
    from offline_training.experiment.lifecycle import create as run

    planned = read_plan(file)
    settings = options(context).connected_settings()
    with site(settings) as at:
        made = run(at, planned, _base(settings), settings.keyring(), SystemClock().now_ms())
    show(_shown(made), f"Experiment {made.name} is made. `matchloop experiment start {made.name} 0.1` begins.", as_json)


def start(context: typer.Context, name: Name, share: Share, as_json: Json = False) -> None:
    """Let users in: every API process assigns them within seconds. A share of 0 is for testers alone.

    Example: `matchloop experiment start wider 0.1`
    """
    from feature_store.contracts.clock import SystemClock
    from infra.site import site
    from offline_training.experiment.lifecycle import start as run

    settings = options(context).connected_settings()
    with site(settings) as at:
        found = run(at, name, share, _base(settings), SystemClock().now_ms())
    show(_shown(found), _standing(found), as_json)


def ramp(context: typer.Context, name: Name, share: Share, as_json: Json = False) -> None:
    """Let more users in. Whoever was in stays, with the same variant.

    With allocation = "thompson" in its file those who come in are dealt by the chance that each variant is best, as far
    as the log tells by now; every variant keeps a fifth of an equal share.

    Example: `matchloop experiment ramp wider 0.5`
    """
    from feature_store.contracts.clock import SystemClock
    from feature_store.rewriting import reading
    from infra.experiment_report import recommended
    from infra.site import site
    from offline_training.experiment.allocation import thompson
    from offline_training.experiment.lifecycle import ramp as run
    from offline_training.experiment.outcomes import outcomes

    settings = options(context).connected_settings()
    with site(settings) as at:
        grows, weights = at.online.experiments.read().named(name), None
        if grows.allocation == "thompson":
            with reading(settings.layout):
                known = outcomes(settings.layout.lake, recommended(settings), grows, settings.rewards)
            weights = thompson(grows, known)
        found = run(at, name, share, _base(settings), SystemClock().now_ms(), weights)
    dealt = ", ".join(f"{variant} {chance:.1%}" for variant, chance in (weights or {}).items())
    show(_shown(found), _standing(found) + (f" Who comes in is dealt: {dealt}." if dealt else ""), as_json)


def stop(context: typer.Context, name: Name, as_json: Json = False) -> None:
    """End it: everybody gets what serves. Its report stays.

    Example: `matchloop experiment stop wider`
    """
    from feature_store.contracts.clock import SystemClock
    from infra.site import site
    from offline_training.experiment.lifecycle import stop as run

    settings = options(context).connected_settings()
    with site(settings) as at:
        found = run(at, name, SystemClock().now_ms())
    show(_shown(found), _standing(found), as_json)


def status(context: typer.Context, name: Name, as_json: Json = False) -> None:
    """Show an experiment: its variants and what they change, its share of the users, its ramps.

    Example: `matchloop experiment status wider`
    """
    from feature_store.online.store import OnlineStore
    from infra.connections import redis_client

    settings = options(context).connected_settings()
    with redis_client(settings) as client:
        found = OnlineStore(client, settings.redis).experiments.read().named(name)
    rows = [["VARIANT", "SHARE", "CHANGES"]]
    for variant in found.variants:
        rows.append([variant.name, f"{found.shares()[variant.name]:.1%}", ", ".join(variant.changes()) or "nothing"])
    show(_shown(found), f"{_standing(found)}\n{found.hypothesis}\n\n{table(rows)}", as_json)


def list_all(context: typer.Context, as_json: Json = False) -> None:
    """List all experiments, the stopped ones too.

    Example: `matchloop experiment list`
    """
    from feature_store.online.store import OnlineStore
    from infra.connections import redis_client

    settings = options(context).connected_settings()
    with redis_client(settings) as client:
        found = list(OnlineStore(client, settings.redis).experiments.read().by_name.values())
    rows = [["EXPERIMENT", "STATUS", "LAYER", "USERS", "VARIANTS"]]
    rows += [
        [one.name, one.status, one.layer, f"{one.share:.1%}", ", ".join(variant.name for variant in one.variants)]
        for one in found
    ]
    words = table(rows) if found else "There is none yet. `matchloop experiment create FILE` makes one."
    show([_shown(one) for one in found], words, as_json)


def report(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Name of the experiment; default: each one that runs.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write the page; default: <home>/experiments.")] = None,
    watch: Annotated[
        float | None, typer.Option(min=1, help="Go on, and report again after so many seconds, until it is stopped.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what an experiment has found: a verdict, numbers that hold at any look, a page, and all of it in MLflow.

    Without a name the reports of all that run are renewed; the stack does so every experiments.report_minutes.

    Example: `matchloop experiment report wider --watch 3600`
    """
    from feature_store.contracts.errors import InvalidInput, Unavailable
    from feature_store.contracts.experiments import Status
    from feature_store.online.store import OnlineStore
    from infra.connections import redis_client
    from infra.experiment_report import page_path, renew, track, write

    settings = options(context).connected_settings()
    if name is None and (out is not None or watch is not None):
        raise InvalidInput("--out and --watch are for one experiment: name it.")
    while True:
        with redis_client(settings) as client:
            known = OnlineStore(client, settings.redis).experiments.read()
        if name is None:
            renew([one for one in known.by_name.values() if one.status is Status.RUNNING and one.share], settings)
            return
        found = known.named(name)
        path = out or page_path(settings, name)
        made = write(settings, found, path)
        try:
            tracked = track(settings, found, made)
        except Unavailable as error:
            tracked = f"Not in MLflow: {error}"
        show(made, f"{_in_words(made)}\n\nPage: {path}\n{tracked}", as_json)
        if watch is None or found.status is Status.STOPPED:
            return
        time.sleep(watch)


def _in_words(made: "ExperimentReport") -> str:
    from offline_training.experiment.page import percent

    rows = [["METRIC", "VARIANT", "USERS", "VALUE", f"AGAINST {made.control.upper()}, AT ANY LOOK", "P"]]
    for one in made.metrics:
        if one.role == "other" and not one.effects:
            continue
        effects = {effect.variant: effect for effect in one.effects}
        for figure in one.figures:
            effect = effects.get(figure.variant)
            change = ["", ""] if effect is None else [percent(effect.always_valid), f"{effect.p_value:.3g}"]
            rows.append([one.name, figure.variant, f"{figure.users:,}", f"{figure.value.value:.4g}", *change])
    left_out = ", ".join(f"{count} {why}" for why, count in made.left_out.items() if count)
    return f"{made.verdict.sentence}\n\n{table(rows)}" + (f"\n\nLeft out: {left_out}." if left_out else "")


def _base(settings: "Settings") -> "Base":
    from offline_training.experiment.lifecycle import Base

    return Base(settings.serving, settings.bandit)


def _shown(experiment: "Experiment") -> dict[str, object]:
    """As JSON has it; buckets and keys of testers are nobody's business."""
    values = experiment.model_dump(mode="json", exclude={"buckets", "testers", "ramps"})
    values["ramps"] = [(one.time, one.share, one.weights) for one in experiment.ramps]
    return values | {"share": experiment.share, "started": experiment.started, "testers": len(experiment.testers)}


def _standing(experiment: "Experiment") -> str:
    return (
        f"Experiment {experiment.name} is {experiment.status}, with {experiment.share:.1%} of the users of layer "
        f"{experiment.layer}."
    )
