"""Simulated GPUs and ledgers, and many small scenes: what is measured is what was done."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from segbatch.bench.app import app
from segbatch.bench.scale import (
    Dispatch,
    _Read,
    _Sleep,
    _write_ledger,
    measure_dispatch,
    measure_planning,
    print_dispatch,
    print_planning,
    simulated_scene,
)
from segbatch.bench.scenes import ManyScenes, print_scenes
from segbatch.errors import InputError
from segbatch.inference.rows import mask_to_row, row_to_mask
from segbatch.inference.tally import tally_ledger


def test_the_overhead_is_the_time_beyond_that_of_busy_gpus() -> None:
    # 40 blocks of 2 s on 4 GPUs are 20 s of work.
    assert Dispatch(4, 2.0, 40, 20.0, 0.0, 0.5, 0.5).overhead == 0.0
    assert Dispatch(4, 2.0, 40, 21.0, 4.0, 0.5, 0.5).overhead == pytest.approx(0.05)
    assert Dispatch(4, 2.0, 40, 20.0, 0.0, 0.5, 0.5).rate == 2.0
    assert Dispatch(4, 0.0, 40, 20.0, 4.0, 0.5, 0.5).overhead == float("inf")


def test_a_simulated_gpu_tells_when_it_had_nothing_to_do() -> None:
    gpu, pixels = _Sleep(0.05), _Read()(0, 0)
    assert gpu(pixels).seconds["idle"] == 0
    time.sleep(0.1)
    found = gpu(pixels).seconds
    assert found["idle"] >= 0.1
    assert found["predict"] >= 0.05


@pytest.mark.parametrize("blocks", [1, 2, 10, 1000])
def test_a_simulated_scene_has_a_block_for_each_core(blocks: int) -> None:
    plan = simulated_scene(blocks)
    assert blocks <= len(plan.grid) < blocks + 2 * blocks**0.5 + 1
    assert len(plan.grid) == plan.grid.lattice.rows * plan.grid.lattice.cols


def test_what_a_simulated_gpu_gives_travels_as_a_real_one_s() -> None:
    mask = _Sleep(0.0)(_Read()(0, 3))
    found = row_to_mask(mask_to_row(mask, ["class_mask"]))
    assert (found.block, found.windows, found.note) == (3, 1, mask.note)


def test_a_simulated_ledger_has_the_rows_of_a_real_one(tmp_path: Path) -> None:
    size = _write_ledger(tmp_path, 500)
    assert size == sum(file.stat().st_size for file in tmp_path.iterdir())
    tally = tally_ledger(tmp_path, {"scene": 510}, 5)["scene"]
    assert np.flatnonzero(~tally.done).tolist() == list(range(500, 510))
    assert tally.class_pixels[0] == tally.confusion[0, 0] == 500 * 64  # type: ignore[index]


def test_planning_and_resuming(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = measure_planning(tmp_path, 900)
    assert found.blocks == 900
    assert min(found.plan, found.resume, found.memory) > 0
    print_planning([found])
    print_dispatch(Dispatch(4, 0.0, 40, 20.0, 4.0, 0.5, 0.5))
    assert "900" in capsys.readouterr().out


def test_too_few_blocks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="60 blocks are too few for 8 GPUs"):
        measure_dispatch(tmp_path, 8, 1.0, 60)


def test_what_a_scene_costs_beyond_itself(capsys: pytest.CaptureFixture[str]) -> None:
    result = ManyScenes(101, 256, "ray", 20.0, 24.0, 0.03, 1.0, 2.5, 0.5, "scene000050", ("scene000050",))
    assert result.overhead == pytest.approx(0.01)
    print_scenes(result)
    assert "named as failed: scene000050" in capsys.readouterr().out
    error = CliRunner().invoke(app, ["scenes", "--scenes", "2"])
    assert error.exit_code == 2


@pytest.mark.slow
def test_many_scenes_of_which_one_is_broken(tmp_path: Path) -> None:
    found = _bench(tmp_path, "scenes", "--scenes", "6", "--side", "64", "--engine", "inline")
    assert found["failed"] == [found["broken"]]
    assert found["all"] > 0


@pytest.mark.ray
@pytest.mark.slow
def test_simulated_gpus_are_all_busy(tmp_path: Path) -> None:
    found = _bench(tmp_path, "scale", "--gpus", "3", "--block-seconds", "0.5", "--blocks", "60", "--planned", "1000")[
        "dispatch"
    ]
    assert 6 <= found["blocks"] <= 48
    # Never faster than GPUs that sleep.
    assert found["seconds"] >= 0.9 * found["blocks"] * 0.5 / 3


def _bench(folder: Path, *words: str) -> dict[str, object]:
    """The figures of a benchmark, in a process of its own: Ray here has no simulated GPUs."""
    file = folder / "figures.json"
    command = [sys.executable, "-m", "segbatch", "bench", *words, "--json", str(file)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, object] = json.loads(file.read_text())["results"]
    return found
