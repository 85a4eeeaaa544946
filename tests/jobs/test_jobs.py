"""The jobs, submitted for real by Ray's own command line to a Ray head on this machine."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.ray


def test_predict_report_and_evaluate_run_as_jobs(head, configuration: Path) -> None:
    run = configuration.parent / "run"
    done = head.submit("python", "jobs/predict.py", "--config", str(configuration))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout
    metrics = json.loads((run / "report" / "metrics.json").read_text())
    assert metrics["scenes"][0]["status"] == "done"

    (run / "report" / "metrics.json").unlink()
    done = head.submit("python", "jobs/report.py", str(run))
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((run / "report" / "metrics.json").read_text()) == metrics

    out = configuration.parent / "evaluation"
    done = head.submit(
        "python", "jobs/evaluate.py", "--prediction", str(run / "masks" / "image.tif"),
        "--label", str(configuration.parent / "image_label.tif"), "--out", str(out),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    evaluated = json.loads((out / "report" / "metrics.json").read_text())
    assert evaluated["confusion"] == metrics["confusion"]


@pytest.mark.slow
def test_the_whole_pipeline_runs_as_a_job_and_training_again_does_nothing(head, configuration: Path) -> None:
    fresh = configuration.parent / "fresh"
    done = head.submit("python", "jobs/pipeline.py", str(configuration), "--set", f"output={fresh}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (fresh / "bundle" / "segbatch.json").is_file()
    assert (fresh / "report" / "report.html").is_file()
    done = head.submit("python", "jobs/train.py", str(configuration), "--set", f"output={fresh}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trained already" in done.stdout


def test_a_job_does_not_write_where_its_files_would_be_lost(head, configuration: Path) -> None:
    done = head.submit("python", "jobs/train.py", str(configuration), "--set", "output=runs/lost")
    assert done.returncode != 0
    assert "runs/lost is relative" in done.stdout


def test_a_job_that_fails_says_why_and_ends_with_an_error(head, configuration: Path) -> None:
    done = head.submit("python", "jobs/predict.py", "--config", str(configuration), "--set", "scenes.predict=[]")
    assert done.returncode != 0
    assert "scenes.predict is empty" in done.stdout
