"""The bench as one picture."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from offline_training.off_policy.estimators import HEADLINE

_SHOWN = ("RIPS", "RIPS, self-normalised", "doubly robust", HEADLINE, f"{HEADLINE}, t")


def draw(results: dict[str, Any], path: Path) -> None:
    """Writes a picture: how often the intervals of unbiased estimators hold the truth, the values of Open Bandit's
    policies from each other's logs beside what they earned, and the project's own policies likewise."""
    own = results.get("own_loop")
    panels = 1 + ("open_bandit" in results) + (own is not None)
    figure = Figure(figsize=(11, 1 + 4.2 * panels), layout="constrained")
    axes = iter(np.atleast_1d(figure.subplots(panels, 1)))
    _coverage(next(axes), results["coverage"])
    if "open_bandit" in results:
        rows = [
            (f"{campaign}: {policy}", found["estimates"][HEADLINE], found["on_policy"], found["refused"])
            for campaign, policies in results["open_bandit"].items()
            for policy, found in policies.items()
        ]
        _beside(next(axes), rows, "Open Bandit: clicks per impression, from the other policy's log")
    if own is not None:
        rows = [(one["name"], one["estimate"], one["measured"], one["refused"]) for one in own["estimates"]]
        _beside(next(axes), rows, "The project's own loop: likes per impression, estimated before and then measured")
    figure.savefig(path, dpi=110)


def _coverage(axis: Axes, found: dict[str, Any]) -> None:
    for k, name in enumerate(_SHOWN):
        held = [kind["estimators"][name]["coverage"] for kind in found.values()]
        axis.plot(held, np.arange(len(found)) + 0.12 * (k - 2), "o", label=name)
    axis.axvspan(0.93, 0.97, color="tab:green", alpha=0.12)
    axis.axvline(0.95, color="black", linewidth=0.8)
    axis.set_yticks(np.arange(len(found)), [f"{name} (n = {kind['decisions']:,})" for name, kind in found.items()])
    axis.invert_yaxis()
    axis.set_title("Share of 95 % intervals that hold the truth; shaded: 93 to 97 %")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.25)


def _beside(axis: Axes, rows: list[tuple[str, Any, Any, str | None]], title: str) -> None:
    """Rows of a name, an estimate, what was measured, and why the estimate was refused."""
    for k, (_, estimate, measured, refused) in enumerate(rows):
        for place, value, color, label in (
            (k - 0.12, estimate, "tab:red" if refused else "tab:blue", "estimated"),
            (k + 0.12, measured, "black", "measured"),
        ):
            spread = [[value.value - value.low], [value.high - value.value]]
            axis.errorbar(
                value.value, place, xerr=spread, fmt="o", color=color, capsize=3, label=label if not k else None
            )
    names = [f"{name}{' (refused)' if refused else ''}" for name, _, _, refused in rows]
    axis.set_yticks(np.arange(len(rows)), names)
    axis.invert_yaxis()
    axis.set_title(title)
    axis.legend(fontsize=8)
    axis.grid(alpha=0.25)
