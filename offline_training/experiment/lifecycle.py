"""What is done to an experiment: made, started, ramped, stopped. Serving processes follow within seconds."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import NamedTuple

from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.experiments import Experiment, Plan, Ramp, Status, claim
from feature_store.contracts.identity import Keyring
from feature_store.online.experiments import named
from offline_training.experiment.metrics import METRICS
from offline_training.promotion.promote import newest_namespace
from offline_training.promotion.releases import Site, find
from online_serving.settings import ServingSettings
from online_serving.treatments import Treatments
from streaming.settings import BanditSettings


class Base(NamedTuple):
    """What variants change: the settings of the installation."""

    serving: ServingSettings
    bandit: BanditSettings


def create(site: Site, plan: Plan, base: Base, keyring: Keyring, now_ms: int) -> Experiment:
    """A new experiment, which assigns nobody yet. Its releases may be given by the beginning of their ids.

    Raises InvalidInput if the name was used before, or for metrics, settings or releases that there are not.
    """
    for metric in (plan.metric, *plan.guardrails):
        if metric not in METRICS:
            raise InvalidInput(f"There is no metric {metric!r}. There are: {', '.join(METRICS)}.")
    variants = [
        variant.model_copy(update={"release": None if variant.release is None else find(site.home, variant.release)})
        for variant in plan.variants
    ]
    testers = {keyring.user_key(user): variant for user, variant in plan.testers.items()}
    written = plan.model_dump() | {"variants": [one.model_dump() for one in variants], "testers": testers}
    experiment = Experiment.model_validate(written | {"created": now_ms})
    _check(experiment, {}, base)

    def made(known: dict[str, Experiment]) -> Experiment:
        if experiment.name in known:
            raise InvalidInput(
                f"There was an experiment {experiment.name!r} already, and its users are in the log. Choose another "
                "name: it salts the assignment."
            )
        return experiment

    return site.online.experiments.change(experiment.name, made)


def start(site: Site, name: str, share: float, base: Base, now_ms: int) -> Experiment:
    """Lets so large a share of the layer's users in. Raises InvalidInput if it cannot run: a release is gone, others
    have the users, or the same setting is changed on another layer."""
    draft = site.online.experiments.read().named(name)
    releases = {variant.release for variant in draft.variants if variant.release is not None}
    namespaces = {release: newest_namespace(site, find(site.home, release)) for release in sorted(releases)}
    for namespace in namespaces.values():
        site.online.deployment.add_namespace(namespace)

    def made(known: dict[str, Experiment]) -> Experiment:
        experiment = named(known, name)
        if experiment.status is not Status.DRAFT:
            raise InvalidInput(
                f"Experiment {name!r} is {experiment.status}. A running one grows with `matchloop experiment ramp`; "
                "a stopped one does not start again: its users have met it."
            )
        running = experiment.model_copy(update={"status": Status.RUNNING, "namespaces": namespaces})
        return _grown(running, share, known, base, now_ms)

    return site.online.experiments.change(name, made)


def ramp(
    site: Site, name: str, share: float, base: Base, now_ms: int, weights: Mapping[str, float] | None = None
) -> Experiment:
    """Lets more users in; whoever was in stays, with the same variant. weights: of each variant, for those who come in;
    None: the plan's."""

    def made(known: dict[str, Experiment]) -> Experiment:
        experiment = named(known, name)
        if experiment.status is not Status.RUNNING:
            raise InvalidInput(f"Experiment {name!r} is {experiment.status}, and only a running one grows.")
        return _grown(experiment, share, known, base, now_ms, weights)

    return site.online.experiments.change(name, made)


def stop(site: Site, name: str, now_ms: int) -> Experiment:
    """Ends it: everybody gets what serves, and its layer's users are free. The report stays."""

    def made(known: dict[str, Experiment]) -> Experiment:
        experiment = named(known, name)
        if experiment.status is Status.STOPPED:
            raise InvalidInput(f"Experiment {name!r} was stopped already.")
        return experiment.model_copy(update={"status": Status.STOPPED, "stopped": now_ms})

    return site.online.experiments.change(name, made)


def _grown(
    experiment: Experiment,
    share: float,
    known: Mapping[str, Experiment],
    base: Base,
    now_ms: int,
    weights: Mapping[str, float] | None = None,
) -> Experiment:
    _check(experiment, known, base)
    grown = claim(experiment, share, known.values())
    step = Ramp(now_ms, share)
    if weights is not None:
        dealt = tuple(weights[variant.name] for variant in experiment.variants)
        step = Ramp(now_ms, share, grown.buckets - experiment.buckets, dealt)
    return grown.model_copy(update={"ramps": (*experiment.ramps, step)})


def _check(experiment: Experiment, known: Mapping[str, Experiment], base: Base) -> None:
    """Raises InvalidInput if it could not run beside the others."""
    others = [one for one in known.values() if one.name != experiment.name]
    Treatments([*others, experiment.model_copy(update={"status": Status.RUNNING})], *base, nullcontext)
