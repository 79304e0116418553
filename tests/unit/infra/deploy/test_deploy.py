"""Images and manifests name only what there is: commands, settings, extras, ports, each other."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import infra
from infra.settings import Settings, load, variable
from tests.unit.infra.test_cli import COMMANDS, ROOT

FOLDER = Path(infra.__file__).parent / "deploy"
KUBERNETES = FOLDER / "kubernetes"
SETTINGS = Settings()
SECTIONS = {name: section for name, section in SETTINGS if hasattr(section, "model_dump")}
VARIABLES = (
    {variable(name, setting) for name, section in SECTIONS.items() for setting, _ in section}
    | {variable("", name) for name, _ in SETTINGS}
    | {"MLFLOW_TRACKING_URI"}
)
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
OURS = {name: service for name, service in COMPOSE["services"].items() if "build" in service}
MANIFESTS: list[dict[str, Any]] = [
    document
    for name in yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
    for document in yaml.safe_load_all((KUBERNETES / name).read_text())
]


def _is_setting(name: str) -> bool:
    return name in VARIABLES or (name.endswith("_FILE") and name.removesuffix("_FILE") in VARIABLES)


def _stages() -> dict[str, str]:
    """By stage of the Dockerfile, what it installs."""
    text = (FOLDER / "Dockerfile").read_text()
    stage = r"^FROM base AS (\w+)\nRUN pip install --no-cache-dir \"?\.(\S*?)\"? -c infra/constraints"
    return dict(re.findall(stage, text, re.M))


def _pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for manifest in MANIFESTS:
        spec = manifest.get("spec", {})
        template = spec.get("template") or spec.get("jobTemplate", {}).get("spec", {}).get("template")
        if template:
            yield manifest["metadata"]["name"], template["spec"]


PODS = dict(_pods())


def test_images_install_extras_that_there_are_and_copy_what_there_is() -> None:
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    stages = _stages()
    assert set(stages) == {"stream", "serve", "train"}
    assert stages["stream"] == "[s3]"
    assert stages["serve"] == "[serve,s3]"  # and with it neither PyTorch, Spark nor MLflow
    for installed in stages.values():
        assert set(filter(None, installed.strip("[]").split(","))) <= extras
    for copied in re.findall(r"^COPY (.*) \S+$", (FOLDER / "Dockerfile").read_text(), re.M):
        for name in copied.split():
            assert (ROOT / name).exists()


@pytest.mark.parametrize("name", sorted(OURS))
def test_services_run_commands_and_settings_that_there_are(name: str) -> None:
    service = OURS[name]
    assert service["command"][0] in COMMANDS
    assert service["build"]["target"] in _stages()
    assert (FOLDER / service["build"]["context"]).resolve() == ROOT
    assert [one for one in service["environment"] if not _is_setting(one)] == []
    assert set(service["depends_on"]) <= set(COMPOSE["services"])
    assert set(service["secrets"]) <= set(COMPOSE["secrets"])
    for mount in service["volumes"]:
        assert mount.split(":")[0] in COMPOSE["volumes"]


def test_the_map_of_settings_holds_settings_that_are_good(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pairs = [line.split("=", 1) for line in (KUBERNETES / "settings.env").read_text().splitlines()]
    for name, value in pairs:
        assert _is_setting(name), name
        (tmp_path / name).write_text("0123456789abcdef" * 2)
        monkeypatch.setenv(name, str(tmp_path / name) if name.endswith("_FILE") else value)
    loaded = load()
    assert (loaded.kafka.partitions, loaded.kafka.replication, loaded.logging.format) == (16, 3, "json")


@pytest.mark.parametrize("name", sorted(PODS))
def test_pods_run_commands_as_nobody_with_probes_and_what_they_mount(name: str) -> None:
    pod = PODS[name]
    [container] = pod["containers"]
    assert container["args"][0] in COMMANDS
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in pod["volumes"]}
    image = container["image"].removeprefix("matchloop-")
    assert image in _stages()
    assert {"requests", "limits"} == set(container["resources"])
    ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
    probes = [container[probe] for probe in container if probe.endswith("Probe")]
    assert bool(probes) == (name != "matchloop-retrain")
    for probe in probes:
        assert probe["httpGet"]["port"] in ports
        assert probe["httpGet"]["path"] in ("/readyz", "/healthz")
    if ports:
        assert ports["metrics"] == SETTINGS.telemetry.port
    if name == "matchloop-serve":
        assert ports["http"] == SETTINGS.serving.port
        assert pod["terminationGracePeriodSeconds"] > SETTINGS.serving.drain_seconds


def test_what_selects_or_scales_finds_its_pods() -> None:
    labels = {
        manifest["metadata"]["name"]: manifest["spec"]["template"]["metadata"]["labels"]
        for manifest in MANIFESTS
        if manifest["kind"] == "Deployment"
    }
    for manifest in MANIFESTS:
        match manifest["kind"]:
            case "Deployment":
                assert manifest["spec"]["selector"]["matchLabels"] == labels[manifest["metadata"]["name"]]
            case "Service":
                assert manifest["spec"]["selector"] in labels.values()
            case "PodDisruptionBudget":
                assert manifest["spec"]["selector"]["matchLabels"] in labels.values()
            case "HorizontalPodAutoscaler":
                assert manifest["spec"]["scaleTargetRef"]["name"] in labels
    sink = next(manifest for manifest in MANIFESTS if manifest["metadata"]["name"] == "matchloop-sink")
    assert (sink["spec"]["replicas"], sink["spec"]["strategy"]) == (1, {"type": "Recreate"})  # never two on a lake
