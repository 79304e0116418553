"""The same data through tea-tasting, which analyses experiments, too: `pip install tea-tasting` where it is wanted, as
it brings a second data-frame stack along."""

from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.experiment.simulated import CONFIDENCE, people
from offline_training.experiment.adjusted import cuped, relative
from offline_training.experiment.statistics import Ratio, difference, interval, ratio

OTHER_FORMULA = "CUPED: difference"  # their theta is over all users, ours within arms, as in a regression on the arm


def differences(seed: int) -> dict[str, float] | None:
    """By figure the relative difference between ours and theirs; None: it is not installed."""
    try:
        import tea_tasting as tt
    except ModuleNotFoundError:
        return None
    found = people(np.random.default_rng([seed, 7]), 20_000, 0.1)
    data = pa.table(
        {
            "variant": found.treated,
            "impressions": found.impressions,
            "reward": found.reward,
            "before": found.before,
        }
    )
    options: dict[str, Any] = {"confidence_level": CONFIDENCE, "use_t": True, "equal_var": False}
    theirs = tt.Experiment(
        per_user=tt.Mean("reward", **options),
        ratio=tt.RatioOfMeans("reward", "impressions", **options),
        cuped=tt.Mean("reward", "before", **options),
    ).analyze(data)
    rows = [found.treated == k for k in (0, 1)]
    ones = np.ones(len(found.reward))
    per_user = [ratio(found.reward[row], ones[row]) for row in rows]
    of_impressions = [ratio(found.reward[row], found.impressions[row]) for row in rows]
    sharper, _ = cuped(
        {"0": per_user[0], "1": per_user[1]}, {str(k): found.before[row][:, None] for k, row in enumerate(rows)}
    )
    pairs = {
        **_compared("mean", per_user[1], per_user[0], theirs["per_user"]),
        **_compared("ratio", of_impressions[1], of_impressions[0], theirs["ratio"]),
    }
    change = difference(sharper["1"], sharper["0"])
    pairs[OTHER_FORMULA] = (change.value, theirs["cuped"].effect_size)
    return {name: float(abs(ours - their) / abs(their)) for name, (ours, their) in pairs.items()}


def _compared(name: str, treatment: Ratio, control: Ratio, theirs: Any) -> dict[str, tuple[float, float]]:
    absolute = interval(difference(treatment, control), CONFIDENCE)
    assert absolute.low is not None
    assert absolute.high is not None
    return {
        f"{name}: control": (control.value, theirs.control),
        f"{name}: treatment": (treatment.value, theirs.treatment),
        f"{name}: difference": (absolute.value, theirs.effect_size),
        f"{name}: low": (absolute.low, theirs.effect_size_ci_lower),
        f"{name}: high": (absolute.high, theirs.effect_size_ci_upper),
        f"{name}: relative": (relative(treatment, control).value, theirs.rel_effect_size),
    }
