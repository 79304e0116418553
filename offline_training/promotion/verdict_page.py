"""A verdict of the gate as a page."""

from datetime import UTC, datetime
from html import escape

from offline_training.evaluation.comparison import Comparison
from offline_training.evaluation.differences import Difference
from offline_training.evaluation.shown import LEAST_EXPLORED_LIKES
from offline_training.promotion.gate import Verdict

_PAGE = """<!doctype html>
<meta charset="utf-8"><title>Release {release}</title>
<style>body{{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}
table{{border-collapse:collapse}}td,th{{padding:.3rem .8rem;border-bottom:1px solid #ddd;text-align:left}}
td.n{{text-align:right;font-variant-numeric:tabular-nums}}.bad{{color:#a00}}.good{{color:#070}}</style>
<h1>Release {release}: {outcome}</h1>
<p>{when}. {compared}</p>{reasons}{override}{evidence}{table}
"""


def verdict_page(verdict: Verdict) -> str:
    """HTML of one file."""
    words = "passed" if not verdict.reasons else ("overridden" if verdict.passed else "held back")
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in verdict.reasons)
    differences = verdict.comparison.differences if verdict.comparison else []
    head = "".join(f"<th>{name}</th>" for name in ("metric", "against", "among", "users", "it", "the other", "more"))
    rows = "".join(map(_row, differences))
    compared = f"Compared with release {verdict.champion}." if verdict.champion else "Compared with no other release."
    if verdict.not_compared:
        compared += f" {verdict.not_compared}"
    return _PAGE.format(
        release=escape(verdict.release),
        outcome=words,
        when=datetime.fromtimestamp(verdict.time / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        compared=escape(compared),
        reasons=f"<h2>Reasons against</h2><ul>{reasons}</ul>" if reasons else "",
        override=f"<p>Overridden: {escape(verdict.override)}</p>" if verdict.override else "",
        evidence=_evidence(verdict.comparison),
        table=f"<table><tr>{head}</tr>{rows}</table><p>Means over users; differences in pairs, with 95 % intervals.</p>"
        if differences
        else "<p>No interactions that neither release had seen: nothing was measured in pairs.</p>",
    )


def _evidence(comparison: Comparison | None) -> str:
    """What the figures of slates rest on."""
    if comparison is None or (found := comparison.evidence) is None:
        return ""
    believed = (
        "that is enough to know how far down people look, and a sure loss of the order within slates counts"
        if found.tells
        else f"with fewer than {LEAST_EXPLORED_LIKES} likes of these it is not known how far down people look, and the "
        "order within slates does not count"
    )
    return (
        f"<p>While it was trained, {found.slates:,} slates with {found.impressions:,} items were shown, "
        f"{found.explored:,} of them by exploration: {believed}. {found.likes:,} likes weigh as much as "
        f"{found.effective_likes:,.0f} of equal weight; attention at place k is taken to be "
        f"k<sup>-{found.position_exponent:.2f}</sup>.</p>"
    )


def _row(one: Difference) -> str:
    low, high = one.low, one.high
    kind = "bad" if high is not None and high < 0 else "good" if low is not None and low > 0 else ""
    bounds = "" if low is None or high is None else f" [{low:+.4f}, {high:+.4f}]"
    return (
        f"<tr><td>{escape(one.metric)}</td><td>{escape(one.against)}</td><td>{escape(one.among)}</td>"
        f'<td class="n">{one.users:,}</td><td class="n">{one.release:.4f}</td><td class="n">{one.other:.4f}</td>'
        f'<td class="n {kind}">{one.mean:+.4f}{bounds}</td></tr>'
    )
