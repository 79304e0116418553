"""`matchloop bench recover`: what do repeat intervals earn where the reward of an item recovers after it was shown?"""

from typing import Any

from benchmarks.recover.world import RECOVERING, World
from infra.benchmarks.bench import Goal
from offline_training.evaluation.metrics import interval
from offline_training.progress import Progress
from online_serving.settings import ServingSettings

CHOICE_SEEDS = 1_000  # rules are chosen on the seed so much further on
INTERVALS = (1, 3, 7, 14, 28)  # days
MULTIPLES = (0.5, 1.0, 2.0)  # of a category's recovery time

NO_RULE = ServingSettings(repeat_days=0)
NEVER = ServingSettings()


def single(days: int) -> ServingSettings:
    """One interval for all items."""
    return ServingSettings(repeat_days=days)


def by_category(multiple: float) -> ServingSettings:
    """An interval for each category, from the time in which its items recover."""
    days = {category: max(1, round(multiple * time)) for category, time in RECOVERING.items()}
    return ServingSettings(repeat_days=0, category_repeat_days=days)


def run(seed: int, progress: Progress) -> tuple[dict[str, Any], list[Goal]]:
    """Chooses an interval, and one for each category, in one world, and holds them against no rule in another, with the
    same visits and the same luck; then in a world in which nothing is lost."""
    other = World(seed + CHOICE_SEEDS)
    progress(0.0, "choosing an interval")
    days = max(INTERVALS, key=lambda days: other.play(single(days)).mean())
    progress(0.4, "choosing intervals of categories")
    multiple = max(MULTIPLES, key=lambda multiple: other.play(by_category(multiple)).mean())
    rules = {
        "no rule": NO_RULE,
        "never again": NEVER,
        "an interval": single(days),
        "by category": by_category(multiple),
    }
    worlds = {"recovering": World(seed), "constant": World(seed, drop=0.0)}
    results: dict[str, Any] = {"days": days, "multiple": multiple}
    for place, (name, world) in enumerate(worlds.items()):
        progress(0.6 + 0.2 * place, f"the {name} world")
        earned = {arm: world.play(rule) for arm, rule in rules.items()} | {"knows the truth": world.play(None)}
        base = earned["no rule"]
        results[name] = {
            arm: {
                "likes_per_visit": float(found.mean()),
                "gain": [float(value / base.mean()) for value in interval(found - base)],
            }
            for arm, found in earned.items()
        }
    return results, goals(results)


def goals(results: dict[str, Any]) -> list[Goal]:
    """Where rewards recover, an interval surely earns more than no rule, and intervals of categories do."""
    recovering = results["recovering"]
    return [
        Goal(name=f"{arm}.gain_low".replace(" ", "_"), value=low, target=0.0, unit="of no rule", better="higher")
        for arm in ("an interval", "by category")
        for _, low, _ in [recovering[arm]["gain"]]
    ]


def rows(results: dict[str, Any]) -> list[list[str]]:
    """For people: what each rule earned, and how much more than none."""
    found = [["WORLD", "RULE", "LIKES A VISIT", "MORE THAN NO RULE", "FROM", "TO"]]
    for world in ("recovering", "constant"):
        for arm, figures in results[world].items():
            found.append([world, arm, f"{figures['likes_per_visit']:.4f}", *(f"{v:+.1%}" for v in figures["gain"])])
    return found
