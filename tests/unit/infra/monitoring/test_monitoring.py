"""Alerts and dashboard name only series that exist, and the page names all of them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import infra
from infra.monitoring.metrics import metrics, page, registered

FOLDER = Path(infra.__file__).parent / "monitoring"
SERIES = {series for metric in metrics() for series in metric.series}
LABELS = {series: set(metric.labels) for metric in metrics() for series in metric.series}
EVERYWHERE = {"instance", "job", "le"}  # of Prometheus, and of buckets

RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
PANELS: list[dict[str, Any]] = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
EXPRESSIONS = [rule["expr"] for rule in RULES] + [target["expr"] for panel in PANELS for target in panel["targets"]]


def test_the_page_is_that_of_the_metrics_there_are() -> None:
    assert (FOLDER / "METRICS.md").read_text() == page(), (
        "python -m infra.monitoring.metrics > infra/monitoring/METRICS.md"
    )
    assert registered() == {metric.name for metric in metrics()}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_series_exists_with_its_labels(expression: str) -> None:
    named = re.findall(r"matchloop_\w+", expression)
    assert named
    assert set(named) <= SERIES
    assert expression.count("(") == expression.count(")")
    for series, matchers in re.findall(r"(matchloop_\w+)\{([^}]*)\}", expression):
        assert set(re.findall(r"(\w+)\s*=", matchers)) <= LABELS[series] | EVERYWHERE
    known = set().union(*(LABELS[series] for series in named)) | EVERYWHERE
    for grouped in re.findall(r"\b(?:by|ignoring|on)\s*\(([^)]*)\)", expression):
        assert {label.strip() for label in grouped.split(",")} <= known


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_every_rule_says_what_it_is_about_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert set(rule["annotations"]) == {"summary", "remedy"}
    assert re.fullmatch(r"\d+[smh]", rule["for"])
    labels = set().union(*(LABELS[series] for series in re.findall(r"matchloop_\w+", rule["expr"]))) | EVERYWHERE
    assert set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))) <= labels


def test_names_follow_the_convention() -> None:
    for metric in metrics():
        assert metric.name.startswith("matchloop_")
        if metric.type == "histogram":
            assert metric.name.endswith("_seconds")
        if "timestamp" in metric.name:
            assert metric.name.endswith("_timestamp_seconds")


def test_panels_do_not_overlap() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in PANELS]
    assert len(set(places)) == len(places) == len({panel["id"] for panel in PANELS})
