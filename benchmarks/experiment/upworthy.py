"""The headline tests of the Upworthy Research Archive: is what the first half calls a winner one in the second half?

Impressions of a test were assigned to its arms at random. Each arm's impressions are parted in two at random, clicks by
the hypergeometric distribution, which is how a random half of them would have fallen.
"""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy import stats

from feature_store.arrays import Int64
from offline_training.experiment.adjusted import always_valid_p, benjamini_hochberg, holm, relative, shrunk
from offline_training.experiment.statistics import Ratio

_ALPHA = 0.05
_SPLIT_ALARM = 0.01


def winners(file: Path, seed: int) -> dict[str, float]:
    """Every arm of a test against its first, as binomial data; decided on one half, judged on the other.

    Returns counts of tests, of those whose arms are of unequal size beyond chance (and left out), of winners by three
    rules (a planned look with Holm within a test; the same for any look; Benjamini-Hochberg over all tests), and what
    the held-out half says of them: how many earn more there than the first arm. Of the first rule's also the mean lift
    that the deciding half promised, raw and drawn to the mean of the test's arms, and that of the held-out half.
    """
    table = pq.read_table(file, columns=["test_id", "impressions", "clicks"]).combine_chunks()
    test = table["test_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    impressions, clicks = (table[name].to_numpy().astype(np.int64) for name in ("impressions", "clicks"))
    rng = np.random.default_rng([seed, 6])
    half = rng.binomial(impressions, 0.5)
    first = rng.hypergeometric(clicks, impressions - clicks, half)
    arms_of = np.split(np.argsort(test, kind="stable"), np.cumsum(np.bincount(test))[:-1])
    unequal, rows = 0, []  # of each arm: p planned, p at any look, p alone, lift, lift drawn, lift held out
    for arms in arms_of:
        control = arms[0]
        if len(arms) < 2 or first[control] == 0 or clicks[control] == first[control]:
            continue  # a lift over nothing is none
        if stats.chisquare(impressions[arms]).pvalue < _SPLIT_ALARM:
            unequal += 1
            continue
        changes = [_change(half[[arm, control]], first[[arm, control]]) for arm in arms[1:]]
        alone = [2 * float(stats.norm.sf(abs(one.value) / one.standard_error)) for one in changes]
        any_look = [always_valid_p(one, 1 - _ALPHA, int(half[arms].sum())) for one in changes]
        drawn = shrunk(np.array([one.value for one in changes]), np.array([one.standard_error for one in changes]))
        held_out = (clicks - first)[arms] / (impressions - half)[arms]
        for place, change in enumerate(changes):
            truth = held_out[place + 1] / held_out[0] - 1
            rows.append(
                (holm(alone)[place], holm(any_look)[place], alone[place], change.value, drawn.effects[place], truth)
            )
    planned, any_look, alone, lift, drawn_lift, truth = np.array(rows).T
    leads = lift > 0
    by_rule = {
        "planned": leads & (planned < _ALPHA),
        "any_look": leads & (any_look < _ALPHA),
        "bh_over_tests": leads & (np.array(benjamini_hochberg(alone.tolist())) < _ALPHA),
    }
    found: dict[str, float] = {
        "tests": len(arms_of),
        "tests_with_unequal_arms": unequal,
        "comparisons": len(rows),
        "leaders_that_lead_again": float(np.mean(truth[leads] > 0)),
    }
    for name, won in by_rule.items():
        found[f"winners_{name}"] = int(won.sum())
        found[f"winners_{name}_that_lead_again"] = float(np.mean(truth[won] > 0)) if won.any() else 0.0
    won = by_rule["planned"]
    if won.any():
        found |= {
            "lift_promised": float(lift[won].mean()),
            "lift_drawn_to_the_mean": float(drawn_lift[won].mean()),
            "lift_held_out": float(truth[won].mean()),
        }
    return found


def _change(impressions: Int64, clicks: Int64) -> Ratio:
    """Of the first of two arms against the second; a unit is an impression."""
    arms = []
    for n, k in zip(impressions.tolist(), clicks.tolist(), strict=True):
        rate = k / n
        influence = np.concatenate([np.full(k, (1 - rate) / n), np.full(n - k, -rate / n)])
        arms.append(Ratio(rate, (rate * (1 - rate) / (n - 1)) ** 0.5, n - 1.0, influence))
    return relative(*arms)
