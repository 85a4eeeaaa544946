"""A cluster of unlike nodes: those without a GPU feed those that have one of the kind that is asked for."""

import json
import sys
from pathlib import Path

import pytest

from tests.chaos.cluster import Cluster, Place
from tests.chaos.process import Command, environment


@pytest.mark.slow
@pytest.mark.ray
def test_cpu_nodes_read_for_the_gpus_of_the_kind_that_is_asked_for(tmp_path: Path) -> None:
    places = [
        Place(resources=("--num-cpus=2",)),
        Place(resources=("--num-cpus=1", "--num-gpus=2", '--resources={"accelerator_type:T4": 1}')),
        Place(resources=("--num-cpus=1", "--num-gpus=1", '--resources={"accelerator_type:K80": 1}')),
    ]
    with Cluster(tmp_path, None, places=places) as cluster:
        words = [sys.executable, "-m", "tests.inference.unlike", cluster.address, "T4"]
        command = Command(words, environment(None), tmp_path / "run.log")
        assert command.wait(240) == 0, command.said
    line = next(line for line in command.said.splitlines() if line.startswith("FOUND "))
    actors, blocks, rows = json.loads(line.removeprefix("FOUND "))
    assert actors == 2
    assert len(rows) == blocks
    assert all("accelerator_type:T4" in predicted and device == "cuda" for _, predicted, device in rows)
    assert any("GPU" not in read for read, _, _ in rows)
