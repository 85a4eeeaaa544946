"""The benchmark measures what it says, on a small scene."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_it_accounts_for_the_scene_and_prints_ratios(tmp_path: Path, make_raster) -> None:
    scene, figures = tmp_path / "scene.tif", tmp_path / "figures.json"
    make_raster(scene, np.random.default_rng(0).integers(0, 255, (3, 300, 420), np.uint8))
    command = [sys.executable, "jobs/benchmark.py", "--scene", str(scene), "--encoder", "resnet18"]
    done = subprocess.run(
        [*command, "--engine", "inline", "--json", str(figures)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "efficiency" in done.stdout
    (result,) = json.loads(figures.read_text())
    assert result["pixels"] == 300 * 420
    assert result["windows"] == 1
    assert result["pixels_run_per_pixel_kept"] == pytest.approx((320 + 128) * (448 + 128) / (300 * 420))
    ratio = result["pipeline_mpx_per_second"] / result["bare_mpx_per_second"]
    assert result["efficiency"] == pytest.approx(ratio)
    assert set(result["stage_seconds"]) == {"read", "wait", "predict", "forward", "write"}
    assert result["peak_memory_mb"]["driver"] > 100
