"""MLflow: what it gets, what it is not told, and what happens when it is not there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segbatch.commands import tracking
from segbatch.commands.folder import RunFolder
from segbatch.commands.listeners import listening
from segbatch.commands.tracking import check_tracking, parameters
from segbatch.config import RunConfig
from segbatch.errors import InputError

STEPS = 10


def make_config(folder: Path, **training: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "trial",
            "output": str(folder),
            "classes": [{"name": "water"}, {"name": "old wood"}],
            "scenes": {"train": [{"image": "https://me:hush@host/a.tif?sig=abc", "label": "a_label.tif"}]},
            "training": {"epochs": 4, "mlflow": True, **training},
        }
    )


def step_event(at: int) -> dict[str, Any]:
    return {
        "kind": "step", "epoch": (at - 1) // STEPS + 1, "epochs": 4, "step": (at - 1) % STEPS + 1, "steps": STEPS,
        "global_step": at, "global_steps": 4 * STEPS, "loss": 1 / at, "learning_rate": 1e-3,
        "tiles_per_second": 8.0, "waited": 0.1,
    }  # fmt: skip


def epoch_event(number: int) -> dict[str, Any]:
    row = {
        "epoch": number, "loss": 0.5, "miou": 0.4, "pixel_accuracy": 0.6, "iou": [0.3, None], "learning_rate": 1e-3,
        "tiles_per_second": 8.0, "waited": 0.1, "train_seconds": 1.0, "validate_seconds": 1.0,
    }  # fmt: skip
    return {"kind": "epoch", "history": [row], "epochs": 4, "global_step": number * STEPS}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of a store on the disk, which stands for a server."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    for name in tracking._ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    return mlflow.MlflowClient(tracking_uri=(tmp_path / "store").as_uri())


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(tracking, "say", lines.append)
    return lines


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    found = RunFolder(tmp_path / "run")
    found.create()
    found.bundle.mkdir()
    (found.bundle / "segbatch.json").write_text("{}")
    return found


def run_of(store: Any, folder: RunFolder) -> Any:
    return store.get_run(folder.read()["mlflow"]["run_id"])


def curve(store: Any, folder: RunFolder, key: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in store.get_metric_history(run_of(store, folder).info.run_id, key)]


def train(folder: RunFolder, *events: dict[str, Any], **training: Any) -> None:
    with listening(make_config(folder.path, **training), folder, "abc") as listen:
        for event in events:
            listen(event)


def test_a_training_is_a_run_with_parameters_and_curves(store: Any, folder: RunFolder) -> None:
    train(folder, step_event(4), epoch_event(1), {"kind": "halo", "halo": 8, "curve": None})
    run = run_of(store, folder)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "trial"
    assert run.data.tags["segbatch.fingerprint"] == "abc"
    assert run.data.params["training.epochs"] == "4"
    assert run.data.params["model.encoder"] == "resnet34"
    assert curve(store, folder, "step/loss") == [(4, 0.25)]
    assert curve(store, folder, "epoch/miou") == [(10, 0.4)]
    assert curve(store, folder, "iou/water") == [(10, 0.3)]
    assert curve(store, folder, "iou/old_wood") == []
    assert store.list_artifacts(run.info.run_id) == []


def test_no_secret_is_told(store: Any, folder: RunFolder, tmp_path: Path) -> None:
    train(folder)
    everything = "".join(path.read_text() for path in (tmp_path / "store").rglob("*") if path.is_file())
    assert "https://***@host/a.tif?***" in everything
    assert "hush" not in everything
    assert "sig=" not in everything


def test_a_training_that_goes_on_is_the_same_run_and_no_point_is_there_twice(store: Any, folder: RunFolder) -> None:
    with pytest.raises(KeyError, match="history"):
        train(folder, step_event(4), epoch_event(1), step_event(14), {"kind": "epoch"})
    first = run_of(store, folder)
    assert first.info.status == "FAILED"
    resume = {"kind": "resume", "epoch": 1, "step": 0, "global_step": 10}
    train(folder, resume, step_event(14), step_event(18), epoch_event(2))
    assert run_of(store, folder).info.run_id == first.info.run_id
    assert run_of(store, folder).info.status == "FINISHED"
    assert len(store.search_runs([first.info.experiment_id])) == 1
    assert curve(store, folder, "step/loss") == [(4, 1 / 4), (14, 1 / 14), (18, 1 / 18)]
    assert curve(store, folder, "epoch/miou") == [(10, 0.4), (20, 0.4)]


def test_the_bundle_is_kept_where_it_is_wanted(store: Any, folder: RunFolder) -> None:
    train(folder, epoch_event(1), mlflow="bundle")
    kept = store.list_artifacts(run_of(store, folder).info.run_id, "bundle")
    assert [item.path for item in kept] == ["bundle/segbatch.json"]


def test_a_server_that_goes_away_costs_nothing_and_gets_the_rest_when_it_is_back(
    store: Any, folder: RunFolder, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    log_batch: Callable[..., None] = mlflow.MlflowClient.log_batch
    away = True

    def fail(*words: Any, **more: Any) -> None:
        if away and not more.get("params"):
            raise ConnectionError("no route to http://me:hush@host/api?token=1\nand more")
        log_batch(*words, **more)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", fail)
    train(folder, step_event(4), epoch_event(1))
    assert said == [
        "  MLflow does not answer, and the training goes on without: no route to http://***@host/api?***",
        "  MLflow has not got 2 rows of metrics.jsonl.",
    ]
    away = False
    train(folder, {"kind": "resume", "epoch": 1, "step": 0, "global_step": 10}, step_event(14))
    assert len(said) == 2
    assert curve(store, folder, "step/loss") == [(4, 1 / 4), (14, 1 / 14)]
    assert curve(store, folder, "epoch/miou") == [(10, 0.4)]


def test_a_server_that_is_not_there_is_said_before_work_begins(
    store: Any, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hush@127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said = r"MLflow at MLFLOW_TRACKING_URI cannot be used: .*http://\*\*\*@127\.0\.0\.1:1"
    with pytest.raises(InputError, match=said) as error:
        train(folder)
    assert "hush" not in str(error.value)


def test_what_mlflow_needs_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'segbatch\[mlflow\]'"):
        check_tracking()
    monkeypatch.setattr(tracking, "find_spec", lambda name: name)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(InputError, match="set MLFLOW_TRACKING_URI"):
        check_tracking()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    check_tracking()


def test_parameters_are_flat() -> None:
    config = {"a": {"b": 1, "c": {"d": None}}, "e": [1, "http://me:geheim@h"], "f": {}, "g": "y" * 1000}
    flat = {"a.b": "1", "a.c.d": "null", "e": '[1, "http://***@h"]', "f": "{}", "g": "y" * 500}
    assert dict(parameters(config)) == flat
