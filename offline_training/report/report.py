"""A run's report: a page, a table for the terminal, and a run on the tracking server, all from one LoopReport."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from offline_training.experiment.loop_metrics import THRESHOLDS
from offline_training.report import text as report_text
from offline_training.report.data import Delay, LoopReport, figures
from offline_training.report.figures import draw

_TEMPLATE = "report.html.j2"


def render(report: LoopReport) -> str:
    """The page: self-contained HTML with inline plots."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(_TEMPLATE).render(
        report=report,
        text=report_text,
        story=report_text.headline(report),
        lower_bound=report_text.lower_bound(report),
        control=next((change.control for change in report.loop.comparison.differences), "The control"),
        alarms=alarms(report),
        created=datetime.fromtimestamp(report.created_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        explored=_explored(report),
        thresholds=THRESHOLDS,
        delays=_delays(report),
        metrics=list(dict.fromkeys(metric for model in report.quality for metric in model.metrics)),
        plots={name: Markup(svg) for name, svg in draw(report).items()},  # noqa: S704  made here, of escaped texts
    )


def write_report(report: LoopReport, path: Path) -> None:
    """Writes the page."""
    path.write_text(render(report), encoding="utf-8")


def alarms(report: LoopReport) -> list[str]:
    """What must be known before the figures are believed."""
    found = []
    ratio = report.loop.comparison.sample_ratio
    if ratio.broken:
        found.append(
            f"Sample ratio mismatch (p = {ratio.p_value:.1g}): users did not fall on the variants as they should have. "
            "Do not believe the comparison before the cause is known."
        )
    if not report.state_equals_replay:
        found.append(
            "The live bandit state differs from its base plus a replay of the log by "
            f"{report.state_largest_difference:.1e}: something was lost or counted twice."
        )
    if report.traffic.items_failed:
        found.append(f"{report.traffic.items_failed:,} new items could not be entered.")
    if report.traffic.items_shown_too_early:
        found.append(
            f"{report.traffic.items_shown_too_early:,} new items were in the catalogue before they entered: this was "
            "not a fresh home."
        )
    return found


def summary_table(report: LoopReport) -> RenderableType:
    """The report for a terminal of 80 characters or more."""
    arms = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    arms.add_column("variant")
    for column in ("users", "shown", "likes per 1,000", "explored", "new 1/3/5×"):
        arms.add_column(column, justify="right", no_wrap=True)
    found = {d.variant: d for d in report.loop.discovery}
    explored = _explored(report)
    for arm in report.loop.comparison.arms:
        liked = "/".join(str(found[arm.variant].discovered[n]) for n in THRESHOLDS)
        arms.add_row(
            arm.variant,
            f"{arm.users:,}",
            f"{arm.impressions:,}",
            report_text.interval(arm.per_thousand),
            explored[arm.variant].partition(" ")[0],
            liked,
        )
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for change in report.differences:
        words = f"{report_text.interval(change.planned, signed=True)}: {report_text.verdict(change)}"
        if change.paired is not None:
            words = f"paired {words}; unpaired {report_text.interval(change.unpaired, signed=True)}"
        facts.add_row(f"{change.variant} − {change.control}", words)
    for name, delay in _delays(report):
        facts.add_row(name, report_text.delay(delay))
    if report.loop.off_policy is not None:
        estimate = report.loop.off_policy.read_first()
        measured = report.arm(report.loop.greedy)
        beside = "" if measured is None else f", measured {report_text.interval(measured.per_thousand)}"
        value = report_text.interval(report_text.per_thousand(estimate.value))
        facts.add_row("greedy policy, off-policy", f"{value}{beside}")
        if estimate.overlap.warning is not None:
            facts.add_row("", Text(estimate.overlap.warning, style="yellow"))
    for model in report.quality:
        shown = "  ".join(f"{metric} {value:.3f}" for metric, value in model.metrics.items())
        facts.add_row(f"{model.name}{' (baseline)' if model.baseline else ''}", shown)
    facts.add_row("visits without log entry", f"{report.traffic.visits_unlogged:,} of {report.traffic.visits:,}")
    facts.add_row("failed requests", f"{sum(report.traffic.errors.values()):,}")
    facts.add_row("state = base + replay", "yes" if report.state_equals_replay else Text("NO", style="bold red"))
    warnings = [Text(alarm, style="bold red") for alarm in alarms(report)]
    answers = [Text(sentence) for sentence in report_text.headline(report)[: report_text.ANSWERS]]
    return Group(*warnings, *answers, arms, facts, Text(report_text.lower_bound(report), style="dim"))


def log_to_mlflow(report: LoopReport, page: Path, tracking_uri: str, experiment: str) -> str:
    """Logs the figures, the page and the whole object as JSON as one run, and returns the run's id."""
    import mlflow  # takes seconds, and only this function needs it

    client = mlflow.MlflowClient(tracking_uri=tracking_uri)
    found = client.get_experiment_by_name(experiment)
    experiment_id = client.create_experiment(experiment) if found is None else found.experiment_id
    run = client.create_run(experiment_id, run_name="loop report", tags={"kind": "loop-report"})
    run_id: str = run.info.run_id
    for name, value in {"data_set": report.data_set, "seed": report.seed, "people": report.people}.items():
        client.log_param(run_id, name, value)
    moment = mlflow.entities.Metric
    metrics = [moment(_metric_name(name), value, report.created_ms, 0) for name, value in figures(report).items()]
    client.log_batch(run_id, metrics=metrics)
    client.log_artifact(run_id, str(page))
    client.log_text(run_id, msgspec.json.format(msgspec.json.encode(report)).decode(), "report.json")
    client.set_terminated(run_id)
    return run_id


def _metric_name(name: str) -> str:
    """MLflow takes letters, digits and _ - . space : / in a metric's name."""
    return "".join(character if character.isalnum() or character in "_-. :/" else "_" for character in name)


def _explored(report: LoopReport) -> dict[str, str]:
    return {s.variant: f"{s.explored:.1%} / {s.configured:.0%}" for s in report.loop.exploration}


def _delays(report: LoopReport) -> list[tuple[str, Delay]]:
    traffic = report.traffic
    return [
        ("request to answer", traffic.request),
        ("feedback to parameters", traffic.feedback_to_parameters),
        ("feedback to an answer with it", traffic.feedback_to_answer),
        ("new item to servable", traffic.item_to_servable),
        ("new item to first impression", traffic.item_to_impression),
    ]
