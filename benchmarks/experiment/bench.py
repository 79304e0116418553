"""`matchloop bench experiment`: do the statistics of experiments keep what they promise?"""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.experiment.peers import OTHER_FORMULA, differences
from benchmarks.experiment.simulated import LOOKS, false_positives, power, split_alarms, variance_removed
from benchmarks.experiment.upworthy import winners
from infra.benchmarks.bench import Goal
from offline_training.progress import Progress

EQUAL = 1e-6
USERS = 5_000
SPLIT_USERS = 50_000
LIFT, POWER = 0.05, 0.8  # the least effect that a plan asks for by itself
# The control's true share of the users, where half is due.
SPLITS = {"as planned": 0.5, "51 to 49": 0.51, "52 to 48": 0.52}


def run(
    data: Path | None, seed: int, progress: Progress, *, tests: int, out: Path | None
) -> tuple[dict[str, Any], list[Goal]]:
    """data: folder that holds upworthy-ab-tests; None: that part is left out. tests: simulated experiments of each
    kind. out: where the picture is written."""
    results: dict[str, Any] = {"tests": tests, "tea_tasting": differences(seed)}
    progress(0.05, f"{tests} A/A tests of {LOOKS} looks")
    results["aa"] = false_positives(seed, tests, USERS)
    progress(0.5, "power")
    results["power"] = power(seed, tests, LIFT, POWER)
    progress(0.7, "CUPED")
    results["cuped"] = variance_removed(seed, tests, USERS)
    progress(0.8, "the split")
    results["split"] = split_alarms(seed, tests, SPLIT_USERS, SPLITS)
    if data is not None:
        progress(0.9, "Upworthy")
        results["upworthy"] = winners(data / "upworthy-ab-tests" / "arms.parquet", seed)
    if out is not None:
        draw(results, out)
    return results, goals(results)


def goals(results: dict[str, Any]) -> list[Goal]:
    """What should hold: few false discoveries at any look, the power that was planned, a split that is off found, and
    winners that win again."""
    found = [
        Goal(name="aa.sequence", value=results["aa"]["sequence"], target=0.05, unit="share", better="lower"),
        Goal(
            name="power.off_theory",
            value=abs(results["power"]["found"] - results["power"]["theory"]),
            target=0.03,
            unit="share",
            better="lower",
        ),
        Goal(
            name="cuped.off_what_it_says",
            value=abs(results["cuped"]["seen"] - results["cuped"]["said"]),
            target=0.05,
            unit="share",
            better="lower",
        ),
        Goal(name="split.false", value=results["split"]["as planned"], target=0.01, unit="share", better="lower"),
        Goal(name="split.51_to_49", value=results["split"]["51 to 49"], target=0.95, unit="share", better="higher"),
    ]
    if results["tea_tasting"] is not None:
        worst = max(value for name, value in results["tea_tasting"].items() if name != OTHER_FORMULA)
        found.append(Goal(name="tea_tasting", value=worst, target=EQUAL, unit="relative", better="lower"))
    if "upworthy" in results:
        again = results["upworthy"]["winners_planned_that_lead_again"]
        found.append(Goal(name="upworthy.lead_again", value=again, target=0.95, unit="share", better="higher"))
    return found


def rows(results: dict[str, Any]) -> list[list[str]]:
    """For people: what, and how much of it."""
    found = [["WHAT", "SHARE"]]
    for part in ("aa", "power", "cuped", "split", "upworthy"):
        for name, value in results.get(part, {}).items():
            shown = f"{value:.1%}" if isinstance(value, float) else f"{value:,}"
            found.append([f"{part}: {name.replace('_', ' ')}", shown])
    return found


def draw(results: dict[str, Any], path: Path) -> None:
    """Writes a picture: false discoveries, power and alarms, each beside what they should be."""
    bars = [
        ("A/A, any look: always-valid", results["aa"]["sequence"], 0.05),
        ("A/A, any look: fixed", results["aa"]["fixed_at_every_look"], 0.05),
        ("A/A, one look: fixed", results["aa"]["fixed_at_the_end"], 0.05),
        ("power, one look", results["power"]["found"], results["power"]["theory"]),
        ("power at any look, as many users", results["power"]["found_at_any_look"], None),
        *((f"alarm: split {name}", value, None) for name, value in results["split"].items()),
        ("variance removed by CUPED", results["cuped"]["seen"], results["cuped"]["said"]),
    ]
    if "upworthy" in results:
        bars.append(("Upworthy: winners that lead again", results["upworthy"]["winners_planned_that_lead_again"], None))
        bars.append(("Upworthy: any leader that leads again", results["upworthy"]["leaders_that_lead_again"], None))
    figure = Figure(figsize=(9, 0.45 * len(bars) + 1), layout="constrained")
    axes = figure.add_subplot()
    names, values, due = zip(*reversed(bars), strict=True)
    axes.barh(names, values, color="#0b6fb8")
    for place, target in enumerate(due):
        if target is not None:
            axes.plot([target, target], [place - 0.4, place + 0.4], color="#d9730d", linewidth=3)
    for place, value in enumerate(values):
        axes.text(value + 0.01, place, f"{value:.1%}", va="center", fontsize=9)
    axes.set_xlim(0, 1.1)
    axes.set_title(f"{results['tests']:,} simulated experiments of each kind; orange: what it should be", fontsize=10)
    figure.savefig(path, dpi=110)
