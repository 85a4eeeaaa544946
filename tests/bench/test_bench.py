"""The benchmarks from their command line on small scenes, and what they derive from what they measure."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from segbatch.bench.app import app
from segbatch.bench.backends import BackendResult, fastest_backend
from segbatch.bench.bare import Bare, Best
from segbatch.bench.forecast import ForecastLine
from segbatch.bench.mapping import Mapped, Reading, Settled
from segbatch.bench.peers import PeerResult, PeersResult
from segbatch.bench.processes import alone, own_peak, peak_memory
from segbatch.bench.run import RunResult
from segbatch.bench.show import print_table, write_results
from segbatch.bench.square import Whole
from segbatch.bench.ways import OURS, Way, other_ways, own_way
from segbatch.errors import InputError, SegbatchError
from segbatch.inference.plan import Costs

MakeRaster = Callable[..., str]
Paint = Callable[..., NDArray[np.uint8]]


def test_options_alone_mean_run() -> None:
    runner = CliRunner()
    assert "--price-per-hour" in runner.invoke(app, ["run", "--help"]).output
    wrong = runner.invoke(app, ["--price-per-hour", "many"])
    assert wrong.exit_code == 2
    assert "price-per-hour" in wrong.output
    assert runner.invoke(app, ["--help"]).output.count("backends") >= 1
    assert runner.invoke(app, ["pears"]).exit_code == 2


def test_figures_as_json(tmp_path: Path) -> None:
    file = tmp_path / "new" / "figures.json"
    write_results(file, "peers", [Whole(Path("a"), math.nan, 3)])
    document = json.loads(file.read_text())
    assert document["results"] == [{"mask": "a", "seconds": None, "memory": 3}]
    assert document["machine"]["cores"] >= 1
    write_results(None, "peers", [])


def test_tables_fit_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("title " * 20, ["", "figure"], [["name " * 20, "1.0"], ["short", "2.0"]])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_dense_sizes_are_checked() -> None:
    error = CliRunner().invoke(app, ["memory", "--dense", "1,ten"]).exception
    assert isinstance(error, InputError)
    assert "1,ten" in str(error)


def _settled() -> Settled:
    choice = {"halo": 16, "settings": {"backend": "eager", "precision": "float32", "batch_size": 1}}
    return Settled(choice, "a processor", False, 1, 0.0)


def _result() -> RunResult:
    mapped = Mapped(
        pixels=8_000_000, blocks=2, windows=8, pixels_run=10_000_000, start_up=3.0, blocks_seconds=7.0,
        finish_seconds=1.0, stages={"read": 1.0}, store_bytes=None, spilled_bytes=None, memory={"driver": 10**8},
        km2=2.0,
    )  # fmt: skip
    costs = Costs(2, 8, 8, 8_000_000, 10_000_000, 12, 10, 6, 1_250_000)
    bare = Bare(seconds=4.0, windows=8, pixels_run=10_000_000, devices=1)
    return RunResult(
        "name", "scene.tif", "ray", _settled(), bare, replace(bare, seconds=8.0), Best((64, 64), 2, 2.0), mapped,
        Reading(costs, 120, 100, 0.1), price_per_hour=3.6,
    )  # fmt: skip


def test_what_follows_from_a_run() -> None:
    result = _result()
    assert result.mapped.mpx_per_second == pytest.approx(1.0)
    assert result.bare_mpx_per_second == pytest.approx(8 / 6)
    assert result.efficiency == pytest.approx(0.75)
    assert result.best_efficiency == pytest.approx(0.5)
    assert result.mapped.tail == pytest.approx(1 / 8)
    assert result.km2_per_hour == pytest.approx(900)
    assert result.cost_per_1000_km2 == pytest.approx(4)
    document = result.to_json()
    assert document["waste"] == pytest.approx(1.25)
    assert document["read_amplification"] == pytest.approx(1.2)
    assert document["forwards_per_window"] == 1
    json.dumps(document)


def test_the_best_is_never_slower_than_the_run_s_own_windows() -> None:
    result = replace(_result(), best=Best((64, 64), 1, 0.5))
    assert result.best_efficiency == result.efficiency


def test_without_a_price_or_a_map_there_is_no_cost() -> None:
    result = _result()
    assert replace(result, price_per_hour=None).cost_per_1000_km2 is None
    assert replace(result, mapped=replace(result.mapped, km2=None)).cost_per_1000_km2 is None


def test_the_fastest_backend_agrees_and_is_not_int8() -> None:
    results = [
        BackendResult("eager/float32", 0.0, 1.0, 1.0, 1.0),
        BackendResult("openvino/float32", 4.0, 1.5, 1.5, 0.99999),
        BackendResult("eager/bf16", 0.0, 3.0, 3.0, 0.99),
        BackendResult("openvino/int8", 4.0, 4.0, 4.0, 0.9995),
        BackendResult("onnx/float32", problem="does not run this model"),
    ]
    assert fastest_backend(results, 0.999) == "openvino/float32"
    assert fastest_backend(results[2:], 0.999) == "eager/float32"


def test_peers_are_compared_at_the_same_quality() -> None:
    whole = Whole(Path("whole.npy"), 3.0, 0)
    ours = own_way("core 512", (512, 512), 64, "eager/bf16")
    plain = own_way("core 512", (512, 512), 64, "eager/float32")
    results = [
        PeerResult(ours, 1.0, 0, 1e-4),
        PeerResult(plain, 2.0, 0, 0.0),
        PeerResult(Way("monai", "quick and wrong", 512, {}), 0.1, 0, 1e-2),
        PeerResult(Way("monai", "slow and right", 512, {}), 5.0, 0, 1e-5),
        PeerResult(Way("tiler", "failed", 512, {}), problem="no"),
    ]
    result = PeersResult("name", "scene.tif", (1024, 1024), 1.5e-4, whole, results, ["terratorch"])
    document = result.to_json()
    assert document["time_over_best_peer"] == pytest.approx(0.2)
    assert document["time_over_best_peer_eager_float32"] == pytest.approx(0.4)
    assert replace(result, results=results[:2]).to_json()["time_over_best_peer"] is None


@pytest.mark.parametrize("tool", ["monai", "terratorch", "toolbelt", "tiler"])
def test_other_programs_get_small_and_large_windows(tool: str) -> None:
    found = list(other_ways(tool, (2048, 2048)))
    assert {512, 1024} <= {way.window for ways in found for way in ways}
    assert all(way.tool == tool != OURS for ways in found for way in ways)
    assert all(way.window < 1024 for ways in other_ways(tool, (1024, 1024)) for way in ways)


def test_a_forecast_line_has_a_ratio_where_both_are_known() -> None:
    assert ForecastLine("time", "s", 10.0, 12.0).ratio == pytest.approx(1.2)
    assert ForecastLine("time", "s", None, 12.0).ratio is None
    assert ForecastLine("blocks", "", 0, 0).ratio is None


def test_a_process_of_its_own_reports_its_peak_and_its_errors() -> None:
    with peak_memory() as peaks:
        assert alone(_hold, 150) > 150e6
    assert peaks["driver"] > 100e6
    assert own_peak() > 0
    with pytest.raises(InputError, match="asked for"):
        alone(_refuse)
    with pytest.raises(SegbatchError, match="_die was killed"):
        alone(_die)


def _hold(megabytes: int) -> int:
    import time

    held = np.ones(megabytes * 10**6, np.uint8)
    time.sleep(1)
    return own_peak() if held.any() else 0


def _refuse() -> None:
    raise InputError("It was asked for.")


def _die() -> None:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_run_from_the_command_line(tmp_path: Path, tiny_bundle: Path, make_raster: MakeRaster, paint: Paint) -> None:
    scene = make_raster(tmp_path / "scene.tif", paint(96, 120), crs="EPSG:32633")
    figures = tmp_path / "run.json"
    done = CliRunner().invoke(
        app,
        ["--bundle", str(tiny_bundle), "--scene", scene, "--engine", "inline", "--backend", "eager", "--precision",
         "float32", "--price-per-hour", "1", "--json", str(figures)],
        catch_exceptions=False,
    )  # fmt: skip
    assert done.exit_code == 0
    (result,) = json.loads(figures.read_text())["results"]
    assert result["mapped"]["pixels"] == 96 * 120
    assert result["forwards_per_window"] == 1
    assert result["settled"]["choice"]["settings"]["backend"] == "eager"
    assert result["km2_per_hour"] > 0
    assert result["cost_per_1000_km2"] > 0
    # The file is read once: there is a single block, and its halo lies beyond the scene.
    assert result["read_amplification"] == pytest.approx(1, abs=0.2)


@pytest.mark.slow
def test_seams_from_the_command_line(tmp_path: Path, tiny_bundle: Path, make_raster: MakeRaster, paint: Paint) -> None:
    scene = make_raster(tmp_path / "scene.tif", paint(300, 300))
    figures = tmp_path / "seams.json"
    arguments = ["seams", "--bundle", str(tiny_bundle), "--scene", scene, "--core", "64", "--side", "256"]
    done = CliRunner().invoke(app, [*arguments, "--halo", "64", "--json", str(figures)], catch_exceptions=False)
    assert done.exit_code == 0
    result = json.loads(figures.read_text())["results"]
    assert (result["core"], result["halo"]) == ([64, 64], 64)
    assert result["cores"]["lines"] == 6
    # The network hardly sees further than the halo, so windows give what the whole square gives.
    assert result["far"] <= result["near"] < 1e-3
    assert result["cores"]["at_borders"] == pytest.approx(result["whole_at_cores"]["at_borders"], abs=1e-2)
    assert result["cores_paired"]["pairs"] == 6 * 256
