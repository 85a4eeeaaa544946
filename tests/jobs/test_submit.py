"""segbatch submit, for real: to a Ray head on this machine that wants a token."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from affine import Affine

from segbatch.commands.predict import predict
from segbatch.commands.request import Request
from segbatch.config import load_config
from segbatch.inference.ledger import read_ledger

pytestmark = pytest.mark.ray

# As `segbatch jobs stop`, whose start takes so long that the mapping might have ended.
STOP_AT_THE_FIRST_ROW = """
import os, sys, time
from segbatch.inference.ledger import read_ledger
from segbatch.submit.client import RayCluster
from segbatch.submit.follow import stop
job_id, ledger, address = sys.argv[1:]
cluster = RayCluster(address)
while not (os.path.isdir(ledger) and read_ledger(ledger)) and not cluster.job(job_id).is_over:
    time.sleep(0.1)
print(stop(cluster, job_id).status)
"""


def test_a_mapping_is_submitted_watched_and_told_of(head, configuration: Path) -> None:
    run = configuration.parent / "run"
    words = ("submit", "predict", "--config", str(configuration), "--halo", "24")
    done = head.segbatch(*words, "--env", "PASSWORD", PASSWORD="geheim-und-lang")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Mapping 1 scene" in done.stdout
    assert "mIoU" in done.stdout
    assert "Running entrypoint" not in done.stdout
    said = done.stderr.splitlines()
    assert said[0].startswith("Sending ")
    assert said[-1].startswith("predict-job-")
    assert " is done after " in said[-1]
    assert json.loads((run / "report" / "metrics.json").read_text())["scenes"][0]["status"] == "done"

    job_id = said[-1].split()[0]
    assert job_id in head.segbatch("jobs", "list").stdout
    status = head.segbatch("jobs", "status", job_id).stdout
    assert f"output    {run}\n" in status
    logs = head.segbatch("jobs", "logs", job_id).stdout
    assert "Mapping 1 scene" in logs
    assert "geheim" not in done.stdout + done.stderr + status + logs

    refused = head.segbatch("jobs", "list", RAY_AUTH_TOKEN="0" * 64)
    assert refused.returncode == 2
    assert refused.stderr == (
        f"Error: {head.address} does not take the token in RAY_AUTH_TOKEN: put the cluster's own there.\n"
    )


@pytest.mark.slow
def test_a_stopped_mapping_goes_on_to_the_same_bytes(head, configuration: Path, make_raster) -> None:
    folder = configuration.parent
    pixels = np.random.default_rng(1).integers(0, 255, (3, 1536, 1536), np.uint8)
    make_raster(folder / "large.tif", pixels, names=("red", "green", "blue"), crs="EPSG:32632",
                transform=Affine(1, 0, 7e5, 0, -1, 5e6), tiled=True)  # fmt: skip
    data = yaml.safe_load(configuration.read_text())
    data["scenes"]["predict"] = [{"image": str(folder / "large.tif")}]
    # Slow enough to be stopped in the middle: nine blocks one after the other, each window four times.
    data["inference"] |= {"tta": "flips", "block_mb": 1, "actors": {"max": 1}}
    data["inference"] |= {"backend": "eager", "precision": "float32"}
    configuration.write_text(yaml.safe_dump(data))
    ledger = folder / "run" / "ledger"

    words = ("submit", "predict", "--config", str(configuration))
    sent = head.segbatch(*words, "--no-wait")
    assert sent.returncode == 0, sent.stdout + sent.stderr
    first = sent.stdout.strip()
    assert first.endswith("-1")
    assert head.python(STOP_AT_THE_FIRST_ROW, first, str(ledger)).stdout == "STOPPED\n"
    assert head.segbatch("jobs", "stop", first).stderr.startswith(f"{first} was stopped after ")
    assert "Stopped. Run the same command again" in head.segbatch("jobs", "logs", first).stdout
    rows = len(read_ledger(ledger))
    assert rows > 0
    assert not (folder / "run" / "masks" / "large.tif").exists()

    done = head.segbatch(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{first} was stopped; what it has done is not done again." in done.stderr
    assert f"({rows} done already)" in done.stdout
    assert len(read_ledger(ledger)) > rows

    clean = ("output=" + str(folder / "clean"), "inference.engine=inline")
    request = Request.from_config(load_config(str(configuration), clean), bundle=folder / "run" / "bundle")
    predict(request)
    masks = [folder / name / "masks" / "large.tif" for name in ("run", "clean")]
    assert masks[0].read_bytes() == masks[1].read_bytes()


def test_a_job_that_cannot_start_says_what_is_missing_and_makes_room(head, tmp_path: Path) -> None:
    words = ("submit", "report", str(tmp_path / "nowhere"))
    waited = head.segbatch(*words, "--entrypoint-cpus", "64", "--pending-timeout", "3")
    assert waited.returncode == 1
    assert waited.stderr.splitlines()[-1].endswith(
        "has not started in 3 s and is given up: it wants 64 CPU, and no node has more than 4 CPU."
    )
    failed = head.segbatch(*words)
    assert failed.returncode == 2
    assert "-1 has not started: the new job takes its place." in failed.stderr
    assert f"Error: The run {tmp_path / 'nowhere'} does not exist." in failed.stdout
    assert "-2 failed with exit code 2" in failed.stderr.splitlines()[-1]
