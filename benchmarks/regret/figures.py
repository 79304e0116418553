"""From scores to what is reported: rewards with intervals, shares, goals."""

from typing import Any

import numpy as np
from scipy import stats

from benchmarks.regret.contenders import BAG, LINTS, LINUCB, ORACLE, OURS, RANDOM, SQUARECB, THOMPSON
from benchmarks.regret.scenarios import Scenario
from benchmarks.regret.tournament import DISCOVERED, Played
from feature_store.arrays import Float64
from infra.benchmarks.bench import Goal

CONFIDENCE = 0.95
Results = dict[str, dict[str, Any]]  # scenario -> report


def report(scenario: Scenario, played: dict[str, Played]) -> dict[str, Any]:
    """One scenario: for each policy the mean reward with its t interval over seeds, the gain over random as a share of
    the oracle's, discovered items (DC@X: with more than X positive rewards), the mean reward so far in equal steps, and
    how it was tuned."""
    reward = {name: np.array([score.reward for score in one.scores]) for name, one in played.items()}
    low, high = reward[RANDOM].mean(), reward[ORACLE].mean()
    return {
        "rounds": scenario.rounds,
        "delay": scenario.delay,
        "seeds": len(reward[RANDOM]),
        "policies": {
            name: {
                "parameters": one.parameters,
                "rounds": one.scores[0].rounds,
                "reward": float(reward[name].mean()),
                "interval": interval(reward[name]),
                "share_of_gain": float((reward[name].mean() - low) / (high - low)),
                "discovered": {
                    f"DC@{x}": float(np.mean([score.discovered[place] for score in one.scores]))
                    for place, x in enumerate(DISCOVERED)
                },
                "curve": np.mean([score.curve for score in one.scores], axis=0).round(5).tolist(),
                "tuning": one.tuning,
            }
            for name, one in played.items()
        },
    }


def interval(values: Float64) -> list[float]:
    """Student's t interval of the mean of at least two values."""
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return [float(values.mean() - half), float(values.mean() + half)]


def goals(results: Results, cost: dict[str, dict[str, float]]) -> list[Goal]:
    """What should hold for the one shipped configuration; those of scenarios that were not played are left out."""
    found = []

    def add(name: str, value: float, target: float, unit: str = "") -> None:
        found.append(Goal(name=name, value=value, target=target, unit=unit, better="higher"))

    for kind, target in (("binary", 0.95), ("continuous", 1.02)):
        if reward := _rewards(results, f"jester/{kind}/static/none"):
            lift = (reward[OURS] - reward[RANDOM]) / (reward[LINUCB] - reward[RANDOM])
            add(f"jester_{kind}.lift_of_linucb", lift, target)
    if reward := _rewards(results, "jester/binary/static/none"):
        add("jester_binary.over_vw", reward[OURS] / max(reward[SQUARECB], reward[BAG]), 1.10)
    if reward := _rewards(results, "jester/binary/arriving/1%"):
        add("jester_arriving.over_lints", reward[OURS] / reward[LINTS], 1.0)
    if reward := _rewards(results, "jester/binary/static/10%"):
        peers = [value for name, value in reward.items() if name not in (OURS, ORACLE)]
        add("jester_late.over_best_peer", reward[OURS] / max(peers), 1.0)
    for rounds, target in ((5_000, 0.5), (20_000, 0.7)):
        if f"upworthy/{rounds}/none" in results:
            share = results[f"upworthy/{rounds}/none"]["policies"][OURS]["share_of_gain"]
            add(f"upworthy_{rounds}.share_of_gain", share, target)
    sparse = [found["policies"] for name, found in results.items() if name.startswith("movielens/")]
    for peer in (THOMPSON, LINUCB) if sparse else ():
        gap = min(policies[OURS]["interval"][0] - policies[peer]["interval"][1] for policies in sparse)
        add(f"movielens.gap_to_{peer}", gap, 0.0, "between the intervals, at the worst delay")
    if cost:
        ours = cost[OURS]
        for name, value, target in (("decision", ours["decision_us"], 2.0), ("edge", ours["edge_update_us"], 0.1)):
            found.append(Goal(name=f"cost.{name}", value=value, target=target, unit="us", better="lower"))
    return found


def _rewards(results: Results, scenario: str) -> dict[str, float]:
    """Mean rewards by policy of those that played all rounds; empty if the scenario was not played."""
    policies = results.get(scenario, {"policies": {}})["policies"]
    return {name: one["reward"] for name, one in policies.items() if not name.startswith("mabwiser")}
