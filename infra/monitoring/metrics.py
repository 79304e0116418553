"""What the processes tell Prometheus, as a page: `python -m infra.monitoring.metrics > infra/monitoring/METRICS.md`."""

import importlib
from typing import NamedTuple

from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

# By process, the modules that its metrics are in.
PROCESSES = {
    "matchloop serve": ["online_serving.metrics"],
    "matchloop update": ["streaming.updater", "streaming.partition"],
    "matchloop sink": ["streaming.sink", "streaming.redis_memory"],
    "matchloop update and matchloop sink": ["streaming.admission"],
    "matchloop connect": ["infra.connect"],
    "matchloop schedule": ["infra.schedule.health"],
}
_ABOUT = """Every process answers Prometheus at `/metrics` on `telemetry.host`, from `telemetry.port` on: `matchloop
status` shows the ports. Made by `python -m infra.monitoring.metrics`. `alerts.yaml` has rules for Prometheus,
`dashboard.json` is for Grafana."""
_SUFFIXES = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"]}


class Metric(NamedTuple):
    """One metric of a process."""

    process: str
    name: str
    type: str
    labels: list[str]
    meaning: str

    @property
    def series(self) -> list[str]:
        """The names that Prometheus knows it by."""
        return [self.name + suffix for suffix in _SUFFIXES[self.type]]


def metrics() -> list[Metric]:
    """All of MatchLoop's, by process."""
    found: list[Metric] = []
    for process, modules in PROCESSES.items():
        for name in modules:
            for value in vars(importlib.import_module(name)).values():
                if isinstance(value, MetricWrapperBase) and _is_of(value, found):
                    (described,) = value.describe()
                    labels = list(value._labelnames)  # noqa: SLF001 - there is no public name
                    found.append(Metric(process, described.name, described.type, labels, described.documentation))
    return found


def _is_of(value: MetricWrapperBase, found: list[Metric]) -> bool:
    (described,) = value.describe()
    return described.name not in {metric.name for metric in found}


def registered() -> set[str]:
    """Names of all metrics of ours that any module has made."""
    metrics()
    return {metric.name for metric in REGISTRY.collect() if metric.name.startswith("matchloop_")}


def page() -> str:
    """The page."""
    lines = ["# Metrics", "", _ABOUT]
    before = None
    for metric in metrics():
        if metric.process != before:
            title = metric.process.replace(" and ", "` and `")
            lines += ["", f"## `{title}`", "", "| metric | type | labels | meaning |", "|---|---|---|---|"]
            before = metric.process
        name = f"`{metric.series[0] if metric.type == 'counter' else metric.name}`"
        lines.append(f"| {name} | {metric.type} | {', '.join(metric.labels)} | {metric.meaning} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
