"""`matchloop release`: the releases that are kept, which of them serves, and the way forth and back."""

import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.commands.state import Stale
from infra.console import Json, byte_size, options, show, table

if TYPE_CHECKING:
    from offline_training.experiment.shadow import ShadowComparison
    from offline_training.experiment.statistics import Interval
    from offline_training.promotion.gate import Verdict
    from offline_training.promotion.releases import Release

Name = Annotated[str, typer.Argument(help="Its id, or how the id begins.", metavar="RELEASE")]
# What a line of the list says of quality; everything else is in `show`.
_SHORT = {
    "validation_retrieval_recall_at_50": "recall@50",
    "validation_popularity_recall_at_50": "popularity's",
    "ranker_auc": "AUC",
}


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    release = typer.Typer(help="List releases, promote one, go back to the one before, remove one.")
    release.command(name="list")(list_releases)
    release.command(name="show")(show_release)
    release.command()(compare)
    release.command()(shadow)
    release.command()(promote)
    release.command()(rollback)
    release.command()(remove)
    app.add_typer(release, name="release")


def list_releases(context: typer.Context, as_json: Json = False) -> None:
    """List the releases that are kept, newest first.

    champion serves, previous did before, challenger is the newest that the gate held back.

    Example: `matchloop release list`
    """
    from infra.site import site
    from offline_training.promotion.aliases import catch_up
    from offline_training.promotion.releases import inventory

    with site(options(context).connected_settings()) as at:
        behind, found = catch_up(at), inventory(at)
    heads = ["release", "made", "is", "parent", "namespaces", "items", *_SHORT.values(), "size"]
    words = table([heads, *map(_line, found)]) if found else "There are no releases yet. Run `matchloop train`."
    show({"releases": found, "aliases": behind}, _with(words, behind), as_json)


def show_release(context: typer.Context, release: Name, as_json: Json = False) -> None:
    """Show what is kept of a release: what it was made from, its metrics, and what the gate said.

    Example: `matchloop release show 1a2b3c`
    """
    from infra.site import site
    from offline_training.promotion.releases import describe, find, roles

    with site(options(context).connected_settings()) as at:
        found = describe(at, find(at.home, release), roles(at))
    show(found, _page(found), as_json)


def compare(
    context: typer.Context,
    release: Name,
    other: Annotated[str, typer.Argument(help="The id of another, or how it begins.", metavar="OTHER")],
    as_json: Json = False,
) -> None:
    """Compare what two releases say of themselves, and what the gate found when it held one against the other.

    Each one's metrics are of its own window; only the gate's differences are of the same users and items, and what one
    answered unseen while the other served (`release shadow`).

    Example: `matchloop release compare 1a2b3c 4d5e6f`
    """
    from infra.site import site
    from offline_training.experiment.shadow import shadow_comparison
    from offline_training.promotion.releases import describe, find, roles

    settings = options(context).connected_settings()
    with site(settings) as at:
        standing = roles(at)
        found = [describe(at, find(at.home, name), standing) for name in (release, other)]
        home, pair = at.home, (found[0].id, found[1].id)
        asked = [shadow_comparison(home.shadow, home.lake, *names, settings.rewards) for names in (pair, pair[::-1])]
    unseen = [one for one in asked if one is not None]
    names = sorted({*found[0].metrics, *found[1].metrics})
    rows = [["", *(one.id for one in found)]]
    rows += [[name, *(_number(one.metrics.get(name)) for one in found)] for name in names]
    ids = {one.id for one in found}
    held = [one.verdict for one in found if one.verdict and {one.id, one.verdict.champion} == ids]
    differences = [line for verdict in held for line in _differences(verdict)]
    words = table(rows) + (f"\n\n{table(differences)}" if differences else "")
    words += "".join(f"\n\n{table(_unseen(one))}" for one in unseen)
    show({"releases": found, "verdicts": held, "shadow": unseen}, words, as_json)


def shadow(
    context: typer.Context,
    release: Annotated[
        str | None, typer.Argument(help="The id of a release that does not serve, or how it begins.", metavar="RELEASE")
    ] = None,
    share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the requests that it answers.")] = 0.1,
    off: Annotated[bool, typer.Option("--off", help="Nothing answers unseen any more.")] = False,
    as_json: Json = False,
) -> None:
    """Have a release answer a share of the requests unseen, beside the one that serves.

    Its slates are noted in the home's shadow/, and never in the log. Every API process gives it `serving.shadow_cpu` of
    a core; what it has no time for is passed over. `release compare` shows what came of it. A promotion ends it.

    Example: `matchloop release shadow 1a2b3c --share 0.2`
    """
    from feature_store.contracts.errors import InvalidInput
    from feature_store.online.deployment import Shadowing
    from infra.site import site
    from offline_training.promotion.promote import newest_namespace
    from offline_training.promotion.releases import find

    if off == (release is not None) or share == 0:
        raise InvalidInput("Name a release that is to answer unseen, with a share above 0, or say --off.")
    with site(options(context).connected_settings()) as at:
        deployment = at.online.deployment
        if release is None:
            deployment.end_shadow()
            show({"shadow": None}, "Nothing answers unseen any more.", as_json)
            return
        name, active = find(at.home, release), deployment.active()
        if active is None or active.release == name:
            raise InvalidInput(
                f"Release {name} serves already: name another." if active else "Nothing serves. Run `matchloop train`."
            )
        shadowing = Shadowing(name, newest_namespace(at, name), share)
        deployment.shadow(shadowing)
    words = f"Release {name} answers {share:.0%} of the requests unseen. See `matchloop release compare {name} OTHER`."
    show({"shadow": shadowing._asdict()}, words, as_json)


def promote(
    context: typer.Context,
    release: Name,
    override: Annotated[
        str | None, typer.Option(help="Why it is to serve whatever the gate says; the reason is kept.")
    ] = None,
    stale: Stale = False,
    as_json: Json = False,
) -> None:
    """Have a release serve that does not: one that the gate held back or that MLflow stopped, or an older one.

    It serves with its newest namespace, once an updater has folded that up to the present. Every API process swaps
    without failing a request. `release rollback` goes back.

    Example: `matchloop release promote 1a2b3c --override "the catalogue was halved on purpose"`
    """
    from feature_store.contracts.clock import SystemClock
    from feature_store.contracts.errors import InvalidInput, Unavailable
    from feature_store.rewriting import undisturbed
    from infra.notification import PROMOTION, notify, telling_of_failures
    from infra.site import site
    from offline_training.promotion.aliases import catch_up, follow
    from offline_training.promotion.garbage import collect
    from offline_training.promotion.promote import newest_namespace
    from offline_training.promotion.promote import promote as run
    from offline_training.promotion.releases import find

    if override is not None and not override.strip():
        raise InvalidInput("--override needs a reason: whoever looks at the release later reads it.")
    settings = options(context).connected_settings()
    with site(settings) as at:
        with undisturbed(settings.layout), telling_of_failures(settings.notify, str(settings.home)):
            name = find(at.home, release)
            if (active := at.online.deployment.active()) is not None and active.release == name:
                raise InvalidInput(f"Release {name} serves already.")
            namespace = newest_namespace(at, name)
            verdict, behind = run(at, name, namespace, override, stale), catch_up(at)
        with contextlib.suppress(Unavailable):  # somebody trains, and cleans up with the next promotion
            if collect(at, settings.releases.kept, settings.rewards.window_seconds, SystemClock().now_ms()):
                behind = follow(at)
    words = f"Release {name} serves, with namespace {namespace}."
    notify(settings.notify, str(settings.home), PROMOTION, words, name)
    if verdict.reasons:
        words += f" The gate was overridden: {'; '.join(verdict.reasons)}."
    result = {"release": name, "namespace": namespace, "verdict": verdict, "aliases": behind}
    show(result, _with(words, behind), as_json)


def rollback(
    context: typer.Context,
    release: Annotated[
        str | None,
        typer.Argument(
            help="The id of any release that is kept, or how it begins; empty: the one before.", metavar="RELEASE"
        ),
    ] = None,
    stale: Stale = False,
    as_json: Json = False,
) -> None:
    """Go back to the release that served before, at once: its bandit has gone on learning.

    Any other release that is kept serves when an updater has folded its namespace up to the present. Run it again to
    go forth again. `state rollback` goes back within a release.

    Example: `matchloop release rollback`
    """
    from feature_store.rewriting import undisturbed
    from infra.notification import ROLLBACK, notify
    from infra.site import site
    from offline_training.promotion.aliases import catch_up
    from offline_training.promotion.promote import go_back
    from offline_training.promotion.releases import find

    settings = options(context).connected_settings()
    with site(settings) as at, undisturbed(settings.layout):
        left = at.online.deployment.active()
        now, behind = go_back(at, None if release is None else find(at.home, release), stale), catch_up(at)
    back = "" if left is None else f" Forth again: `matchloop release rollback`, to release {left.release}."
    words = f"Release {now.release} serves, with namespace {now.namespace}.{back}"
    notify(settings.notify, str(settings.home), ROLLBACK, words, now.release)
    result = {"release": now.release, "namespace": now.namespace, "left": left and left.release, "aliases": behind}
    show(result, _with(words, behind), as_json)


def remove(context: typer.Context, release: Name, as_json: Json = False) -> None:
    """Remove a release with its namespaces, what Redis holds of them, and MLflow's copies of it.

    Never the one that serves, its parent, or the one before.

    Example: `matchloop release remove 1a2b3c`
    """
    from feature_store.rewriting import rewriting
    from infra.site import site
    from offline_training.promotion.aliases import follow
    from offline_training.promotion.releases import find
    from offline_training.promotion.removal import remove as run

    settings = options(context).connected_settings()
    with site(settings) as at:
        with rewriting(settings.layout):
            name = find(at.home, release)
            freed = run(at, name)
        behind = follow(at)
    show(
        {"release": name, "bytes": freed, "aliases": behind},
        _with(f"Release {name} is gone, {byte_size(freed)}.", behind),
        as_json,
    )


def _line(release: "Release") -> list[str]:
    made = "damaged" if release.created is None else _time(release.created)
    numbers = [_number(release.metrics.get(name)) for name in _SHORT]
    return [
        *(release.id, made, ", ".join(release.roles) or "kept", release.parent or "-"),
        *(" ".join(release.namespaces) or "-", str(release.items or "-"), *numbers, byte_size(release.bytes)),
    ]


def _page(release: "Release") -> str:
    facts: list[tuple[str, Any]] = [
        ("release", release.id),
        ("is", ", ".join(release.roles) or "kept"),
        ("made", "" if release.created is None else _time(release.created)),
        ("parent", release.parent),
        ("namespaces", " ".join(release.namespaces)),
        ("items", release.items),
        ("size", byte_size(release.bytes)),
        ("damaged", release.damaged),
    ]
    if (verdict := release.verdict) is not None:
        facts += [
            ("gate", f"{_time(verdict.time)}: {'; '.join(verdict.reasons) or 'passed'}"),
            ("compared with", verdict.champion or verdict.not_compared),
            ("override", verdict.override),
        ]
    facts += [(name, f"{value:.4f}") for name, value in sorted(release.metrics.items())]
    words = table([[name, str(value)] for name, value in facts if value not in (None, "")])
    differences = [] if verdict is None else _differences(verdict)
    return words + (f"\n\n{table(differences)}" if differences else "")


def _differences(verdict: "Verdict") -> list[list[str]]:
    """What the gate measured in pairs, as rows under a head."""
    if verdict.comparison is None or not verdict.comparison.differences:
        return []
    rows = [["metric", "against", "among", "users", verdict.release, "the other", "difference, 95 %"]]
    for one in verdict.comparison.differences:
        bounds = "" if one.low is None or one.high is None else f" [{one.low:+.4f}, {one.high:+.4f}]"
        rows.append(
            [
                *(one.metric, one.against, one.among, f"{one.users:,}"),
                *(f"{one.release:.4f}", f"{one.other:.4f}", f"{one.mean:+.4f}{bounds}"),
            ]
        )
    return rows


def _unseen(one: "ShadowComparison") -> list[list[str]]:
    """What came of answering unseen, as rows."""

    def bounded(figure: "Interval") -> str:
        bounds = "" if figure.low is None or figure.high is None else f" [{figure.low:.4f}, {figure.high:.4f}]"
        return f"{figure.value:.4f}{bounds}"

    rows = [
        [f"{one.release} unseen beside {one.champion}", f"{one.requests:,} requests of {one.users:,} users"],
        ["items of the other's slate", bounded(one.overlap)],
        ["at the same place", bounded(one.same_place)],
        *([f"expected by {name}", _number(value)] for name, value in one.expected.items()),
    ]
    if one.off_policy is not None and one.earned is not None:
        estimate = one.off_policy.read_first()
        rows += [
            ["it would have earned per slot", f"{bounded(estimate.value)}, {estimate.estimator}"],
            ["the other earned", bounded(one.earned)],
        ]
        if estimate.overlap.warning:
            rows.append(["", estimate.overlap.warning])
    return rows


def _with(words: str, behind: str | None) -> str:
    return words if behind is None else f"{words}\n{behind}"


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
