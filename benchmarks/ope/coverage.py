"""How often 95 % intervals hold the truth on synthetic logs, and how far the values are off."""

from typing import Any

import numpy as np

from benchmarks.ope.synthetic import KINDS, Kind, log, truth, world
from offline_training.experiment.statistics import interval
from offline_training.off_policy.estimators import HEADLINE, doubly_robust_normalised, evaluate
from offline_training.progress import Progress, section

WORLDS = 20
TUNING_SEEDS = 1_000_000  # from here on; reported are those from --seed on
_CONFIDENCE = 0.95


def coverage(logs: int, seed: int, progress: Progress) -> dict[str, dict[str, Any]]:
    """Of each kind, over so many logs of `WORLDS` worlds in turn: by estimator the share of intervals that hold the
    truth, their mean width and the root of the mean squared error; and how many logs an estimate was refused for.

    t: the plain t interval beside it, of the headline's estimator.
    """
    found = {}
    for place, kind in enumerate(KINDS):
        part = section(progress, place / len(KINDS), (place + 1) / len(KINDS))
        found[kind.name] = _of_kind(kind, logs, seed, part)
    return found


def _of_kind(kind: Kind, logs: int, seed: int, progress: Progress) -> dict[str, Any]:
    worlds = [world(kind, seed + number) for number in range(WORLDS)]
    truths = [truth(of, seed + number) for number, of in enumerate(worlds)]
    held: dict[str, list[bool]] = {}
    errors: dict[str, list[float]] = {}
    widths: dict[str, list[float]] = {}
    refused, effective = 0, []

    def note(name: str, value: float, low: float | None, high: float | None, true: float) -> None:
        assert low is not None
        assert high is not None
        held.setdefault(name, []).append(low <= true <= high)
        errors.setdefault(name, []).append(value - true)
        widths.setdefault(name, []).append(high - low)

    for number in range(logs):
        if number % 20 == 0:
            progress(number / logs, f"coverage: {kind.name}")
        of, true = worlds[number % WORLDS], truths[number % WORLDS]
        made = log(of, seed + number)
        result = evaluate(made, _CONFIDENCE, None if kind.tail else (0.0, 1.0))
        refused += result.refusal is not None
        effective.append(result.read_first().overlap.effective_size)
        for estimate in result.estimates:
            note(estimate.estimator, estimate.value.value, estimate.value.low, estimate.value.high, true)
        plain = interval(doubly_robust_normalised(made)[0], _CONFIDENCE)
        note(f"{HEADLINE}, t", plain.value, plain.low, plain.high, true)
        if result.bounds is not None:
            for name in ("empirical_bernstein", "betting"):
                bound = getattr(result.bounds, name)
                note(f"IPS, {name.replace('_', ' ')}", bound.value, bound.low, bound.high, true)
    return {
        "logs": logs,
        "decisions": kind.decisions,
        "users": kind.users,
        "truth": float(np.mean(truths)),
        "effective_size": float(np.median(effective)),
        "refused": refused,
        "estimators": {
            name: {
                "coverage": float(np.mean(hits)),
                "rmse": float(np.sqrt(np.mean(np.square(errors[name])))),
                "bias": float(np.mean(errors[name])),
                "width": float(np.mean(widths[name])),
            }
            for name, hits in held.items()
        },
    }
