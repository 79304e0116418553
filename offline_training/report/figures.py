"""The plots of a report, as SVG texts that scale down to a phone."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from offline_training.experiment.loop_metrics import Curve
from offline_training.experiment.statistics import Interval
from offline_training.report.data import Delay, LoopReport
from offline_training.report.text import milliseconds, per_thousand

_PALETTE = ("#5f6b7a", "#0b6fb8", "#d9730d", "#1a7f5a", "#8b3fa8", "#b3261e")
_FAINT = "#b9c2cd"
_SIZE = (4.7, 2.9)  # inches: about the width of a phone, so that texts keep their size there
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "svg.fonttype": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa4b1",
    "axes.labelcolor": "#3c4653",
    "axes.grid": True,
    "grid.color": "#e6eaef",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": "#3c4653",
    "ytick.color": "#3c4653",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


class Plot:
    """A figure being drawn; `svg` holds it when the context has ended."""

    def __init__(self, figure: Figure, axes: Axes) -> None:
        self.figure = figure
        self.axes = axes
        self.svg = ""


@contextmanager
def _plot(name: str, size: tuple[float, float] = _SIZE) -> Iterator[Plot]:
    # The salt makes ids repeatable, and different from those of the other plots on the page.
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        plot = Plot(figure, figure.add_subplot())
        yield plot
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
        svg = text.getvalue()
        plot.svg = svg[svg.index("<svg") :]


def draw(report: LoopReport) -> dict[str, str]:
    """All plots for which there is something to show: name -> SVG."""
    colours = {arm.variant: _PALETTE[i % len(_PALETTE)] for i, arm in enumerate(report.loop.comparison.arms)}
    traffic = report.traffic
    feedback = {
        "until parameters changed": traffic.feedback_to_parameters,
        "until an answer used it": traffic.feedback_to_answer,
    }
    items = {"until servable": traffic.item_to_servable, "until first shown": traffic.item_to_impression}
    plots = {
        "differences": _differences(report, colours),
        "cumulative": _curves(
            "cumulative", report.loop.cumulative_reward, colours, "visits of the variant", "likes per 1,000"
        ),
        "over_time": _curves("over_time", report.loop.reward_over_time, colours, "visits of all", "likes per 1,000"),
        "discovery": _curves("discovery", report.loop.discovery_curves, colours, "recommendations", "new items liked"),
        "feedback": _delays("feedback", feedback),
        "items": _delays("items", items),
        "quality": _quality(report),
        "off_policy": _off_policy(report, colours),
    }
    return {name: svg for name, svg in plots.items() if svg}


def _differences(report: LoopReport, colours: dict[str, str]) -> str:
    rows = []
    for change in report.differences:
        name, colour = f"{change.variant} − {change.control}", colours[change.variant]
        if change.paired is not None:
            rows.append((name, change.paired, colour))
            name = "unpaired"
        rows.append((name, change.unpaired, _FAINT))
    if not rows:
        return ""
    with _plot("differences", (_SIZE[0], 0.9 + 0.35 * len(rows))) as plot:
        _intervals(plot.axes, rows)
        plot.axes.axvline(0, color=_PALETTE[0], linewidth=1)
        plot.axes.set_xlabel("more likes per 1,000, 95 % interval")
    return plot.svg


def _off_policy(report: LoopReport, colours: dict[str, str]) -> str:
    measured = report.arm(report.loop.greedy)
    if report.loop.off_policy is None:
        return ""
    rows = [(e.estimator, per_thousand(e.value), _PALETTE[0]) for e in report.loop.off_policy.estimates]
    if measured is not None:
        rows.append((f"measured: {measured.variant}", measured.per_thousand, colours[measured.variant]))
    return estimates("off_policy", rows, "likes per 1,000 recommendations, 95 % interval")


def estimates(name: str, rows: Sequence[tuple[str, Interval, str]], label: str) -> str:
    """Rows of a name, a value and a colour; a band is drawn for the last one, if it has an interval."""
    _, last, colour = rows[-1]
    with _plot(name, (_SIZE[0], 0.9 + 0.3 * len(rows))) as plot:
        _intervals(plot.axes, rows)
        if last.low is not None and last.high is not None:
            plot.axes.axvspan(last.low, last.high, color=colour, alpha=0.12, linewidth=0)
        plot.axes.set_xlabel(label)
    return plot.svg


def _intervals(axes: Axes, rows: Sequence[tuple[str, Interval, str]]) -> None:
    for place, (_, found, colour) in enumerate(rows):
        if found.low is not None and found.high is not None:
            axes.plot([found.low, found.high], [place, place], color=colour, linewidth=2.2, solid_capstyle="round")
        axes.plot([found.value], [place], "o", color=colour, markersize=6)
        axes.annotate(
            f"{found.value:.1f}",
            (found.value, place),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.7)
    axes.grid(False, axis="y")
    axes.margins(x=0.08)


def _curves(name: str, curves: Sequence[Curve], colours: dict[str, str], x: str, y: str) -> str:
    if not any(curve.x for curve in curves):
        return ""
    with _plot(name) as plot:
        for curve in curves:
            plot.axes.plot(curve.x, curve.y, color=colours[curve.variant], label=curve.variant, linewidth=1.8)
        plot.axes.set_xlabel(x)
        plot.axes.set_ylabel(y)
        plot.axes.set_ylim(bottom=0)
        plot.axes.set_xlim(left=0)
        plot.axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5))
        plot.axes.legend(loc="best")
    return plot.svg


def _delays(name: str, delays: dict[str, Delay]) -> str:
    """Cumulative distributions; delays that were still open count in the denominator, so a curve may end below 100
    %.
    """
    known = {label: found for label, found in delays.items() if found.quantiles_ms}
    if not known:
        return ""
    with _plot(name) as plot:
        for (label, found), colour in zip(known.items(), _PALETTE[1:], strict=False):
            share = np.linspace(0, 100, len(found.quantiles_ms)) * found.count / (found.count + found.open)
            plot.axes.plot(np.maximum(found.quantiles_ms, 0.1), share, color=colour, label=label, linewidth=1.8)
        plot.axes.set_xscale("log")
        plot.axes.xaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 3), numticks=8))
        plot.axes.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: milliseconds(value)))
        plot.axes.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
        plot.axes.set_ylabel("% done")
        plot.axes.set_ylim(0, 102)
        plot.axes.legend(loc="lower right")
    return plot.svg


def _quality(report: LoopReport) -> str:
    """One row of bars per metric that lies in 0..1 and that at least two models have."""
    counts: dict[str, int] = {}
    for model in report.quality:
        for metric, value in model.metrics.items():
            counts[metric] = counts.get(metric, 0) + (0 <= value <= 1)
    metrics = [metric for metric, count in counts.items() if count >= 2]
    if not metrics:
        return ""
    bars = len(report.quality)
    with _plot("quality", (_SIZE[0], 0.8 + 0.17 * (bars + 1) * len(metrics))) as plot:
        for row, model in enumerate(report.quality):
            values = [model.metrics.get(metric, float("nan")) for metric in metrics]
            places = [group * (bars + 1) + row for group in range(len(metrics))]
            colour = _FAINT if model.baseline else _PALETTE[1 + row % (len(_PALETTE) - 1)]
            plot.axes.barh(places, values, height=0.86, color=colour)
            for place, value in zip(places, values, strict=True):
                if not np.isnan(value):
                    plot.axes.text(value, place, f" {model.name} {value:.3f}", va="center", fontsize=7.5)
        plot.axes.set_yticks([group * (bars + 1) + (bars - 1) / 2 for group in range(len(metrics))], metrics)
        plot.axes.invert_yaxis()
        plot.axes.grid(False, axis="y")
        plot.axes.margins(x=0.45)
        plot.axes.set_xlim(left=0)
    return plot.svg
