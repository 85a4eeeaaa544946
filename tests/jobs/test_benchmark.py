"""The benchmark measures what it says, on a small scene."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_it_accounts_for_the_scene_and_prints_ratios(tmp_path: Path, make_raster, tiny_bundle: Path) -> None:
    scene, figures = tmp_path / "scene.tif", tmp_path / "figures.json"
    make_raster(scene, np.random.default_rng(0).integers(1, 255, (3, 300, 420), np.uint8))
    command = [sys.executable, "jobs/benchmark.py", "--scene", str(scene), "--bundle", str(tiny_bundle)]
    done = subprocess.run(
        [*command, "--engine", "inline", "--backend", "eager", "--precision", "float32", "--json", str(figures)],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "efficiency" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    document = json.loads(figures.read_text())
    assert document["command"] == "run"
    (result,) = document["results"]
    mapped = result["mapped"]
    assert (mapped["pixels"], mapped["windows"]) == (300 * 420, 1)
    assert result["before"]["windows"] == result["after"]["windows"] == 1
    # One window of whole strides, without a halo.
    assert result["before"]["pixels_run"] == mapped["pixels_run"] == 304 * 424
    assert result["waste"] == pytest.approx(mapped["pixels_run"] / mapped["pixels"])
    assert result["forwards_per_window"] == 1
    ratio = result["pipeline_mpx_per_second"] / result["bare_mpx_per_second"]
    assert result["efficiency"] == pytest.approx(ratio)
    assert result["best_efficiency"] <= result["efficiency"] * (1 + 1e-9)
    assert {"read", "wait", "upload", "forward", "download", "write"} <= set(mapped["stages"])
    assert mapped["memory"]["driver"] > 100e6
    assert mapped["km2"] is None  # the scene has no map
