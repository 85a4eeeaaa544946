"""What Prometheus and Grafana are given: figures that there are, ports that there are, and nobody else let in."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from segbatch.telemetry import METRICS

CLUSTER = Path(__file__).parents[2] / "cluster"
RAY = Path(ray.__file__).parent

Manifest = dict[str, Any]


@pytest.fixture(scope="module")
def dashboard() -> Manifest:
    return json.loads((CLUSTER / "grafana" / "segbatch.json").read_text(encoding="utf-8"))


def panels(dashboard: Manifest) -> list[Manifest]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions(dashboard: Manifest) -> list[str]:
    return [target["expr"] for panel in panels(dashboard) for target in panel["targets"]]


@pytest.fixture(scope="module")
def known() -> set[str]:
    """Figures that segbatch tells, and those of the installed Ray: by its dashboards and what its nodes measure."""
    ours = {name for metric in METRICS for name in metric.exported}
    folder = RAY / "dashboard" / "modules"
    shown = "".join(path.read_text() for path in (folder / "metrics" / "dashboards").glob("*_panels.py"))
    measured = (folder / "reporter" / "reporter_agent.py").read_text()
    gauges = re.findall(r'^ {4}"(\w+)": Gauge\(', measured, re.MULTILINE)
    assert len(gauges) > 20
    return ours | set(re.findall(r"\bray_\w+", shown)) | {f"ray_{name}" for name in gauges}


def test_every_figure_is_one_that_there_is(dashboard: Manifest, known: set[str]) -> None:
    used = {name for text in expressions(dashboard) for name in re.findall(r"\bray_\w+", text)}
    assert used - known == set()
    assert "ray_segbatch_blocks" not in known  # a counter without its ending would be noticed
    ours = {metric.name for metric in METRICS}
    shown = {name for name in ours if any(f"ray_{name}" in text for text in expressions(dashboard))}
    # Nothing is told for nobody to see.
    assert ours - shown <= {"segbatch_training_epoch", "segbatch_training_learning_rate"}


def test_tags_are_those_that_figures_have(dashboard: Manifest) -> None:
    for text in expressions(dashboard):
        for name, chosen in re.findall(r"\bray_(segbatch_\w+)\{([^}]*)\}", text):
            metric = next(metric for metric in METRICS if f"ray_{name}" in metric.exported)
            assert set(re.findall(r"(\w+)\s*[=!]", chosen)) <= {"run", *metric.tags}, text
            assert 'run=~"$run"' in chosen, text


def test_stages_are_those_of_the_ledger(dashboard: Manifest) -> None:
    from segbatch.inference.rows import SECONDS

    named = {stage for text in expressions(dashboard) for stage in re.findall(r'stage[=!]~?"([^"]+)"', text)}
    assert {stage for names in named for stage in names.split("|")} <= {*SECONDS, "write"}


def test_brackets_are_balanced(dashboard: Manifest) -> None:
    for text in expressions(dashboard):
        assert [text.count(one) for one in "([{"] == [text.count(one) for one in ")]}"], text


def test_where_figures_come_from_is_chosen_in_grafana(dashboard: Manifest) -> None:
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    for source in [panel["datasource"] for panel in panels(dashboard)] + [variables["run"]["datasource"]]:
        assert source == {"type": "prometheus", "uid": "${datasource}"}


def test_panels_have_their_place(dashboard: Manifest) -> None:
    taken: set[tuple[int, int]] = set()
    identities = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(identities)) == len(identities)
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + col, at["y"] + row) for col in range(at["w"]) for row in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken
        taken |= cells
        assert panel["title"]
    assert all(panel["description"] for panel in panels(dashboard))


def test_the_ports_that_prometheus_asks_are_those_of_all_nodes(
    manifests: dict[str, list[Manifest]], raycluster: Manifest
) -> None:
    monitor, policy = manifests["podmonitor.yaml"]
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (rule,) = policy["spec"]["ingress"]
    (let_in,) = rule["ports"]
    for group in [raycluster["spec"]["headGroupSpec"], *raycluster["spec"]["workerGroupSpecs"]]:
        (container,) = group["template"]["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports[endpoint["port"]] == let_in["port"]
        # Where the user says nothing, KubeRay has Ray export its figures there.
        assert "metrics-export-port" not in group["rayStartParams"]


def test_the_monitor_selects_rays_pods(manifests: dict[str, list[Manifest]], raycluster: Manifest) -> None:
    monitor, policy = manifests["podmonitor.yaml"]
    labels = raycluster["spec"]["headGroupSpec"]["template"]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"] == {**labels, "ray.io/is-ray-node": "yes"}
    assert policy["spec"]["podSelector"] == monitor["spec"]["selector"]


def test_machines_are_found_by_the_file_that_ray_writes() -> None:
    from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE

    config = yaml.safe_load((CLUSTER / "prometheus.yaml").read_text(encoding="utf-8"))
    (job,) = config["scrape_configs"]
    (files,) = job["file_sd_configs"]
    assert files["files"] == [f"/tmp/ray/{PROMETHEUS_SERVICE_DISCOVERY_FILE}"]
