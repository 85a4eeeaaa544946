"""The figures that Ray's nodes export are those of the ledger."""

import re
import time
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from segbatch import telemetry
from segbatch.commands.predict import predict
from segbatch.commands.request import Request
from segbatch.inference.ledger import LedgerRow, read_ledger
from segbatch.telemetry import METRICS, Meter

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]

_MOST_SECONDS = 60
"""Ray's processes tell their nodes of figures every ten seconds."""


def scrape(run: str) -> Samples:
    """The figures of a run, by name and tags, as Prometheus would get them from this node."""
    import ray

    (node,) = (node for node in ray.nodes() if node["Alive"])
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("run") == run:
                kept = {name: value for name, value in sample.labels.items() if name in ("outcome", "stage", "le")}
                key = sample.name, tuple(sorted(kept.items()))
                found[key] = found.get(key, 0.0) + sample.value
    return found


def scrape_until(run: str, ready: Callable[[Samples], bool]) -> Samples:
    deadline = time.monotonic() + _MOST_SECONDS
    while True:
        found = scrape(run)
        if ready(found) or time.monotonic() > deadline:
            return found
        time.sleep(1)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_node_exports_what_the_ledger_says(
    tmp_path: Path, make_raster: Callable[..., str], paint: Callable[..., Any], tiny_bundle: Path
) -> None:
    from segbatch.commands.folder import RunFolder
    from segbatch.config import Inference
    from segbatch.scenes import SceneRef

    good = make_raster(tmp_path / "good.tif", paint(640, 600, 1))
    cut = make_raster(tmp_path / "cut.tif", paint(160, 160, 2), tiled=True, blockxsize=32, blockysize=32)
    Path(cut).write_bytes(Path(cut).read_bytes()[: Path(cut).stat().st_size * 3 // 4])
    run = f"figures of {tmp_path.name}"
    request = Request(
        name=run,
        folder=RunFolder(tmp_path / "run"),
        bundle=tiny_bundle,
        refs=[SceneRef("good", good), SceneRef("cut", cut)],
        bands=None,
        nodata=None,
        label_map=None,
        inference=Inference.model_validate({"core": 64, "block_mb": 1, "format": ["zarr"]}),
        address="auto",
        overwrite=False,
        config={},
    )
    predict(request)
    rows = list(read_ledger(tmp_path / "run" / "ledger").values())
    bad = sum(row.error is not None for row in rows)
    assert 0 < bad < len(rows)
    blocks = "ray_segbatch_blocks_total"
    found = scrape_until(run, lambda found: sum(n for (name, _), n in found.items() if name == blocks) == len(rows))
    assert found[blocks, (("outcome", "done"),)] == len(rows) - bad
    assert found[blocks, (("outcome", "failed"),)] == bad
    assert found["ray_segbatch_pixels_total", ()] == sum(sum(row.class_pixels) + row.nodata_pixels for row in rows)
    assert found["ray_segbatch_windows_total", ()] == sum(row.windows for row in rows)
    for stage in {stage for row in rows for stage, seconds in row.seconds.items() if seconds > 0}:
        expected = sum(row.seconds.get(stage, 0.0) for row in rows)
        assert found["ray_segbatch_stage_seconds_total", (("stage", stage),)] == pytest.approx(expected), stage
    assert {"read", "wait", "idle", "predict", "forward", "write"} <= {
        dict(tags).get("stage") for _, tags in found
    }  # fmt: skip
    assert found["ray_segbatch_block_seconds_count", ()] == len(rows)
    assert found["ray_segbatch_blocks_left", ()] == 0


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_node_exports_how_a_training_goes(tmp_path: Path) -> None:
    run = f"training of {tmp_path.name}"
    meter = Meter(run)
    meter.training({"kind": "resume", "epoch": 0, "global_step": 0})
    meter.training(
        {"kind": "step", "global_step": 15, "global_steps": 40, "loss": 0.5, "learning_rate": 1e-3,
         "tiles_per_second": 9.0, "waited": 0.25}
    )  # fmt: skip
    meter.training({"kind": "epoch", "global_step": 20, "history": [{"epoch": 2, "miou": 0.75}]})
    expected = {
        "step": 20,
        "steps": 40,
        "loss": 0.5,
        "tiles_per_second": 9.0,
        "waiting": 0.25,
        "epoch": 2,
        "miou": 0.75,
    }
    found = scrape_until(run, lambda found: ("ray_segbatch_training_miou", ()) in found)
    for name, value in expected.items():
        assert found[f"ray_segbatch_training_{name}", ()] == value, name


def row(**changes: Any) -> LedgerRow:
    known = LedgerRow("a", 0, "x", (3, 4), 5, 0, None, 2, 1.0, {"read": 0.5, "forward": 0.0, "write": 0.25})
    return replace(known, **changes)


class Recorded:
    """A figure that keeps what it is told."""

    def __init__(self, name: str, told: list[tuple[Any, ...]]) -> None:
        self._name, self._told = name, told

    def inc(self, amount: float, tags: dict[str, str]) -> None:
        assert amount > 0
        self._told.append((self._name, amount, *tags.values()))

    def observe(self, value: float) -> None:
        self._told.append((self._name, value))

    def set(self, value: float) -> None:
        self.observe(value)


def test_a_block_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[Any, ...]] = []
    known = {metric.name: Recorded(metric.name.removeprefix("segbatch_"), told) for metric in METRICS}
    monkeypatch.setattr(telemetry, "_create", lambda run: known)
    meter = Meter("r")
    meter.mapping(2)
    meter.block(row())
    meter.block(row(error="damaged", class_pixels=(0, 0), nodata_pixels=0, windows=0, seconds={"read": 0.5}))
    assert told == [
        ("blocks_left", 2),
        ("blocks_left", 1), ("blocks", 1, "done"), ("pixels", 12), ("windows", 2), ("stage_seconds", 0.5, "read"),
        ("stage_seconds", 0.25, "write"), ("block_seconds", 0.75),
        ("blocks_left", 0), ("blocks", 1, "failed"), ("stage_seconds", 0.5, "read"), ("block_seconds", 0.5),
    ]  # fmt: skip


def test_what_goes_wrong_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(run: str) -> None:
        raise RuntimeError("no Ray")

    monkeypatch.setattr(telemetry, "_create", broken)
    meter = Meter("r")
    meter.mapping(1)
    meter.block(row())
    meter.training({"kind": "step"})
    meter.training({"kind": "epoch", "history": []})


def test_names_are_what_prometheus_takes() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert re.fullmatch(r"segbatch_[a-z_]+[a-z]", metric.name)
        assert not metric.name.endswith(("_total", "_count", "_sum"))
        assert metric.about.endswith(".")
