"""What a request of each user is answered with: the settings of the installation, and of the variants that the user
meets.

Everything is made when the experiments change. A request costs one hash per layer and one look-up.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from pydantic import BaseModel, JsonValue, ValidationError

from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.experiments import Assigned, Assignment, Experiment, Status, Variant, assigned_in, label
from online_serving.corpus import Corpus, Parts
from online_serving.pipeline.pipeline import Pipeline, Stage
from online_serving.settings import ServingSettings
from streaming.settings import BanditMode, BanditSettings

_MOST = 1_000  # combinations of variants of different layers
# What a request reads. The other settings belong to a process, to the log, or to the state that all variants share.
SERVING = frozenset(
    {
        *("slate_size", "candidates", "cluster_candidates", "list_candidates", "fresh_candidates", "repeat_days"),
        *("ranker", "excluded_categories", "category_boosts", "category_repeat_days"),
    }
)
BANDIT = frozenset(BanditSettings.model_fields) - {"memory_days"}

SettingsT = TypeVar("SettingsT", bound=BaseModel)


class Treatment(NamedTuple):
    """How a request is answered."""

    label: str  # as the log says it: contracts.experiments.label
    pipeline: Pipeline
    slate_size: int
    remembers_shown: bool
    learns: bool
    release: str | None  # None: the one that serves


class Treatments:
    """The treatment of every user, while nothing changes."""

    def __init__(
        self, experiments: Iterable[Experiment], serving: ServingSettings, bandit: BanditSettings, stage: Stage
    ) -> None:
        """stage: see Pipeline. Raises InvalidInput for experiments that cannot run at once, or with these settings."""
        running = sorted((one for one in experiments if one.status is Status.RUNNING), key=lambda one: one.layer)
        refuse_overlaps(running)
        self._assignment = Assignment(running)
        layers = [list(_choices(of_layer)) for _, of_layer in itertools.groupby(running, lambda one: one.layer)]
        count = 1
        for choices in layers:
            count *= len(choices)
        if count > _MOST:
            raise InvalidInput(
                f"The variants of {len(layers)} layers can meet in {count} ways, which is more than {_MOST}. Put "
                "experiments on one layer, or stop some."
            )
        parting = next((one for one in running if one.unit == "item"), None)
        parts = None if parting is None else Parts(parting)
        self._by_assigned: dict[tuple[Assigned, ...], Treatment] = {}
        for met in itertools.product(*layers):
            assigned = tuple(one for one, _ in filter(None, met))
            variants = [variant for _, variant in filter(None, met)]
            corpus = None if parts is None or parting is None else Corpus(parts, _number(parting, assigned))
            self._by_assigned[assigned] = treatment(label(assigned), variants, serving, bandit, stage, corpus)
        self.releases = frozenset(one.release for one in self._by_assigned.values() if one.release is not None)

    def of(self, user: str) -> Treatment:
        """Of a user key."""
        return self._by_assigned[self._assignment.of(user)]


def treatment(
    name: str,
    variants: Sequence[Variant],
    serving: ServingSettings,
    bandit: BanditSettings,
    stage: Stage,
    corpus: Corpus | None = None,
) -> Treatment:
    """What users get who meet all these variants. corpus: their part of the catalogue, None: all of it. Raises
    InvalidInput if a setting does not exist, has a wrong value, or is none that a request reads."""
    for variant in variants:
        serving = _overridden(serving, variant, "serving", variant.serving, SERVING)
        bandit = _overridden(bandit, variant, "bandit", variant.bandit, BANDIT)
    refuse_contradiction(name, serving, bandit)
    if serving.slate_size > serving.max_slate_size:
        raise InvalidInput(
            f"{name}: serving.slate_size {serving.slate_size} is more than serving.max_slate_size "
            f"{serving.max_slate_size}. Ask for less, or raise the limit in the settings."
        )
    release = next((variant.release for variant in variants if variant.release is not None), None)
    learns = bandit.mode is not BanditMode.OFF
    pipeline = Pipeline(serving, bandit, stage, corpus)
    return Treatment(name, pipeline, serving.slate_size, serving.remembers_shown, learns, release)


def refuse_contradiction(name: str, serving: ServingSettings, bandit: BanditSettings) -> None:
    """Raises InvalidInput, naming what they are of, if both settings are good and do not go together."""
    if not serving.ranker and bandit.mode is not BanditMode.OFF:
        raise InvalidInput(
            f"{name}: serving.ranker is off and bandit.mode is {bandit.mode}: the bandit works on the ranker's "
            'probabilities. Set bandit.mode = "off" as well.'
        )


def bandit_of(variant: Variant, bandit: BanditSettings) -> BanditSettings:
    """The bandit's settings for users of a variant."""
    return _overridden(bandit, variant, "bandit", variant.bandit, BANDIT)


def settings_of(
    text: str, experiments: Mapping[str, Experiment], serving: ServingSettings, bandit: BanditSettings
) -> tuple[ServingSettings, BanditSettings] | None:
    """With which settings a user was answered whose decision has this label; None if it names a variant that is not
    among the experiments, by name."""
    for met in assigned_in(text):
        experiment = experiments.get(met.experiment)
        variant = next((one for one in experiment.variants if one.name == met.variant), None) if experiment else None
        if variant is None:
            return None
        serving = _overridden(serving, variant, "serving", variant.serving, SERVING)
        bandit = _overridden(bandit, variant, "bandit", variant.bandit, BANDIT)
    return serving, bandit


def refuse_overlaps(running: Sequence[Experiment]) -> None:
    """Raises InvalidInput if experiments of different layers change the same setting, or two part the catalogue: what
    would their common users get?"""
    if len(parting := [one.name for one in running if one.unit == "item"]) > 1:
        raise InvalidInput(f"Experiments {' and '.join(parting)} both part the catalogue. Stop one of them first.")
    owners: dict[str, Experiment] = {}
    for experiment in running:
        for setting in set().union(*(variant.changed() for variant in experiment.variants)):
            owner = owners.setdefault(setting, experiment)
            if owner.layer != experiment.layer:
                raise InvalidInput(
                    f"Experiments {owner.name!r} and {experiment.name!r} both change {setting}, on layers "
                    f"{owner.layer!r} and {experiment.layer!r}. Put them on one layer, where they share no user."
                )


def _number(experiment: Experiment, assigned: Sequence[Assigned]) -> int:
    """Of the variant of an experiment that is among what was assigned, -1 if none is."""
    met = next((one.variant for one in assigned if one.experiment == experiment.name), None)
    return next((n for n, variant in enumerate(experiment.variants) if variant.name == met), -1)


def _choices(experiments: Iterable[Experiment]) -> Iterable[tuple[Assigned, Variant] | None]:
    """What a user may meet of one layer, nothing included; as a tester, too."""
    yield None
    for experiment in experiments:
        forced = set(experiment.testers.values())
        for variant in experiment.variants:
            yield Assigned(experiment.name, variant.name), variant
            if variant.name in forced:
                yield Assigned(experiment.name, variant.name, True), variant


def _overridden(
    settings: SettingsT, variant: Variant, section: str, overrides: Mapping[str, JsonValue], read: frozenset[str]
) -> SettingsT:
    if not overrides:
        return settings
    if foreign := sorted(set(overrides) - read):
        raise InvalidInput(
            f"Variant {variant.name!r} sets {section}.{foreign[0]}, which no request reads. A variant may set: "
            f"{', '.join(sorted(read))}."
        )
    try:
        return type(settings).model_validate(settings.model_dump() | dict(overrides))
    except ValidationError as error:
        detail = error.errors()[0]
        where = ".".join(map(str, (section, *detail["loc"])))
        raise InvalidInput(f"Variant {variant.name!r}: {where} is {detail['input']!r}: {detail['msg']}.") from None
