"""An experiment's report as a page, and its plots."""

import io
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from html import escape

from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from offline_training.experiment.analysis import Effect, ExperimentReport, MetricReport
from offline_training.experiment.corpus import MORE_THAN, WITHIN_DAYS
from offline_training.experiment.statistics import Interval

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Experiment {name}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1d2530}}
.verdict{{font-size:1.35rem;border-left:.4rem solid {colour};padding:.3rem 1rem;margin:1.2rem 0}}
table{{border-collapse:collapse;margin:.6rem 0}}
td,th{{padding:.3rem .8rem;border-bottom:1px solid #ddd;text-align:left}}
td.n{{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}}.bad{{color:#a00}}.good{{color:#070}}
small,.dim{{color:#5f6b7a}}svg{{max-width:100%;height:auto}}</style></head><body>
<h1>Experiment {name}</h1>
<p class="dim">{hypothesis}</p>
<p class="verdict">{verdict}</p>
<p>{users} users and {decisions} slates until {when}. Compared with <b>{control}</b>. {split}</p>{causes}
<table><tr><th>variant</th><th>what it changes</th></tr>{changes}</table>
<h2>Numbers</h2>{tables}
<p class="dim">A change is the difference as a share of the control's value, with its {confidence} interval: where that
leaves out 0, there is a difference. "At any look" holds however often the page is looked at; "planned" only for one
look at {planned} users. p is the chance of such a difference where there is none, at any look, given how many
comparisons there are. What users did before the experiment is taken out where it is known.</p>
{parts}{slices}{corpus}
<h2>Over time</h2>{plots}
<p class="dim">Bands are intervals that hold at any look. In the plot by a user's slates an effect that is large at
first and goes is curiosity; one that grows is learning.</p>
{left_out}
</body></html>
"""
_COLOURS = {"broken": "#a00", "harm": "#a00", "worse": "#a00", "better": "#070", "no_difference": "#5f6b7a"}
_OPEN = "#d9a406"
_WHY = {
    "duplicate": "logged twice",
    "out_of_time": "from before the start or after the stop, by a wrong clock",
    "unknown_variant": "of a variant that the experiment has not",
    "moved": "logged with another variant than the assignment gives",
    "tester": "of testers",
}


def page(report: ExperimentReport) -> str:
    """HTML of one file."""
    split = report.sample_ratio
    counts = ", ".join(f"{escape(name)} {count:,}" for name, count in split.observed.items())
    causes = "".join(f"<li>{escape(cause)}</li>" for cause in split.causes)
    roles = {"primary": "What decides", "guardrail": "Must not get worse", "other": "Beside it"}
    tables = "".join(
        f"<h3>{title}</h3>" + _table(found)
        for role, title in roles.items()
        if (found := [one for one in report.metrics if one.role == role])
    )
    left_out = [f"<li>{count:,} {_WHY[why]}</li>" for why, count in report.left_out.items() if count]
    return _PAGE.format(
        name=escape(report.name),
        hypothesis=escape(report.hypothesis),
        verdict=escape(report.verdict.sentence),
        colour=_COLOURS.get(report.verdict.answer, _OPEN),
        users=f"{report.users:,}",
        decisions=f"{report.decisions:,}",
        when=datetime.fromtimestamp(report.time / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        control=escape(report.control),
        split=f"Users by variant: {counts} (a split so uneven comes by chance with p = {_p(split.p_value)}).",
        changes="".join(
            f"<tr><td>{escape(name)}</td><td>{escape(', '.join(found) or 'nothing: as everybody else')}</td></tr>"
            for name, found in report.changes.items()
        ),
        causes=f"<ul>{causes}</ul>" if causes else "",
        tables=tables,
        confidence=f"{report.confidence:.0%}",
        planned=f"{report.planned_users:,}",
        parts=_parts(report),
        slices=_slices(report),
        corpus=_corpus(report),
        plots="".join(map(_svg, figures(report).values())),
        left_out=f"<h2>Slates that do not count</h2><ul>{''.join(left_out)}</ul>" if left_out else "",
    )


def figures(report: ExperimentReport) -> Mapping[str, Figure]:
    """Plots by file name: the change of each metric that was looked at again and again, and how the effect on users
    changed as they got used to it."""
    drawn = {
        f"{name}.png": _over_time(report, name)
        for name in dict.fromkeys(look.metric for look in report.looks)
        if any(look.effect is not None for look in report.looks if look.metric == name)
    }
    return drawn | ({"novelty.png": _novelty(report)} if report.novelty else {})


def percent(found: Interval) -> str:
    """A change with its bounds."""
    bounds = "" if found.low is None or found.high is None else f" [{found.low:+.1%}, {found.high:+.1%}]"
    return f"{found.value:+.1%}{bounds}"


def _over_time(report: ExperimentReport, name: str) -> Figure:
    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    axes = figure.add_subplot()
    words = next(one.words for one in report.metrics if one.name == name)
    for variant in dict.fromkeys(look.variant for look in report.looks):
        points = [
            (datetime.fromtimestamp(look.time / 1000, UTC), look.effect)
            for look in report.looks
            if look.metric == name and look.variant == variant and look.effect is not None
        ]
        bounded = [(time, one.value, one.low, one.high) for time, one in points if one.low is not None]
        if bounded:
            times, values, lows, highs = zip(*bounded, strict=True)
            (line,) = axes.plot(times, [100 * value for value in values], marker=".", label=variant)
            axes.fill_between(
                times, [100 * low for low in lows], [100 * high for high in highs], color=line.get_color(), alpha=0.15
            )
    axes.axhline(0, color="#5f6b7a", linewidth=1)
    axes.set_ylabel(f"% against {report.control}")
    axes.set_title(f"{words}: change so far, with the interval that holds at any look", fontsize=10)
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]  # matplotlib's
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]  # matplotlib's
    effects = [look.effect for look in report.looks if look.metric == name and look.effect is not None]
    last = [abs(bound) for one in effects[-len(effects) // 2 :] for bound in (one.low, one.high) if bound is not None]
    if any(last):
        axes.set_ylim(-130 * max(last), 130 * max(last))  # the first looks would squeeze the others
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False)
    return figure


def _novelty(report: ExperimentReport) -> Figure:
    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    axes = figure.add_subplot()
    names = list(dict.fromkeys((one.first, one.last) for one in report.novelty))
    variants = list(dict.fromkeys(one.variant for one in report.novelty))
    for place, variant in enumerate(variants):
        found = [one for one in report.novelty if one.variant == variant and one.effect.low is not None]
        at = [names.index((one.first, one.last)) + 0.08 * (place - (len(variants) - 1) / 2) for one in found]
        values = [100 * one.effect.value for one in found]
        below = [100 * (one.effect.value - (one.effect.low or 0.0)) for one in found]
        axes.errorbar(at, values, yerr=below, fmt="o-", capsize=3, label=variant)
    axes.axhline(0, color="#5f6b7a", linewidth=1)
    axes.set_xticks(range(len(names)), [_slates(first, last) for first, last in names])
    axes.set_xlabel("of a user's slates in the experiment")
    axes.set_ylabel(f"% against {report.control}")
    words = next(one.words for one in report.metrics if one.role == "primary")
    axes.set_title(f"{words}: change as users get used to it, with intervals for one look", fontsize=10)
    axes.legend(frameon=False)
    return figure


def _slates(first: int, last: int | None) -> str:
    if last is None:
        return f"from {first} on"
    return str(first) if first == last else f"{first} to {last}"


def _table(reports: Iterable[MetricReport]) -> str:
    rows = ""
    for report in reports:
        effects = {one.variant: one for one in report.effects}
        for place, one in enumerate(report.figures):
            words = f'<td rowspan="{len(report.figures)}">{escape(report.words)}</td>'
            rows += (
                f"<tr>{'' if place else words}<td>{escape(one.variant)}</td>"
                f'<td class="n">{one.users:,}</td><td class="n">{one.value.value:,.4g}</td>'
                + _cells(effects.get(one.variant), report)
                + "</tr>"
            )
    names = ("", "variant", "users", "value", "change, at any look", "change, planned", "p")
    head = "".join(f"<th>{name}</th>" for name in names)
    return f"<table><tr>{head}</tr>{rows}</table>"


def _cells(effect: Effect | None, report: MetricReport) -> str:
    if effect is None:
        return "<td></td><td></td><td></td>"
    kind = ""
    if effect.always_valid.excludes_zero:
        kind = "good" if (effect.always_valid.value > 0) is report.higher_is_better else "bad"
    return (
        f'<td class="n {kind}">{percent(effect.always_valid)}</td><td class="n">{percent(effect.planned)}</td>'
        f'<td class="n">{_p(effect.p_value)}</td>'
    )


def _p(value: float) -> str:
    return "&lt; 0.001" if value < 0.001 else f"{value:.2g}"


def _slices(report: ExperimentReport) -> str:
    if not report.slices:
        return ""
    head = "".join(f"<th>{name}</th>" for name in ("users", "variant", "number", "change", "drawn to the mean"))
    rows: Iterable[str] = (
        f'<tr><td>{escape(one.name)}</td><td>{escape(one.variant)}</td><td class="n">{one.users:,}</td>'
        f'<td class="n">{one.effect:+.1%}</td><td class="n">{percent(one.shrunk)}</td></tr>'
        for one in report.slices
    )
    return (
        f"<h2>Among whom</h2><table><tr>{head}</tr>{''.join(rows)}</table><p class='dim'>Small slices swing by chance: "
        "the last column draws them towards each other as far as their differences may be noise.</p>"
    )


def _parts(report: ExperimentReport) -> str:
    if not report.parts:
        return ""
    names = ("variant", "items of its own", "shown at all", "that people found", "change")
    head = "".join(f"<th>{name}</th>" for name in names)
    rows = "".join(
        f'<tr><td>{escape(one.variant)}</td><td class="n">{one.items:,}</td><td class="n">{_share(one.shown)}</td>'
        f'<td class="n">{_share(one.discoverable)}</td>'
        f'<td class="n">{"" if one.change is None else percent(one.change)}</td></tr>'
        for one in report.parts
    )
    return (
        f"<h2>What became of the items</h2><table><tr>{head}</tr>{rows}</table><p class='dim'>The catalogue was parted "
        f"as the users were: each variant had items that nobody else saw. Found: more than {MORE_THAN} positive "
        f"interactions within the last {WITHIN_DAYS:g} days. Intervals are for one look, over items and users both. "
        "What the numbers above owe to which items a variant had, their intervals do not know.</p>"
    )


def _share(found: Interval) -> str:
    return f"{found.value:.1%} [{found.low:.1%}, {found.high:.1%}]"


def _corpus(report: ExperimentReport) -> str:
    if not report.corpus:
        return ""
    head = "".join(f"<th>{name}</th>" for name in ("variant", "items shown", "items that people found"))
    rows = "".join(
        f'<tr><td>{escape(one.variant)}</td><td class="n">{_count(one.shown)}</td>'
        f'<td class="n">{_count(one.discoverable)}</td></tr>'
        for one in report.corpus
    )
    return (
        f"<h2>The corpus</h2><table><tr>{head}</tr>{rows}</table><p class='dim'>Among {report.corpus[0].users:,} "
        f"users of each variant. Found: more than {MORE_THAN} positive interactions within the last {WITHIN_DAYS:g} "
        "days. The intervals are wide rather than narrow.</p>"
    )


def _count(found: Interval) -> str:
    return f"{found.value:,.0f} [{found.low:,.0f}, {found.high:,.0f}]"


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
