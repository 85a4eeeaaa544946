"""`segbatch run`: one configuration trained, mapped, evaluated and reported."""

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from sklearn.metrics import confusion_matrix

import segbatch.commands.run as run_module
import segbatch.commands.train as train_module
from segbatch.cli import main

WriteRaster = Callable[..., str]
HEIGHT, WIDTH = 128, 160


def segbatch(*words: str) -> tuple[object, str]:
    """Call the command line in this process: its exit code and what it said."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said), pytest.raises(SystemExit) as ended:
        main(list(words))
    return ended.value.code or 0, said.getvalue()


@pytest.fixture
def config(tmp_path: Path, make_raster: WriteRaster) -> Path:
    for index in range(2):
        rng = np.random.default_rng(index)
        label = np.kron(rng.integers(0, 2, (HEIGHT // 16, WIDTH // 16)), np.ones((16, 16), int))
        image = np.stack([60 + 120 * label, 200 - 100 * label]) + rng.integers(-20, 20, (2, HEIGHT, WIDTH))
        make_raster(tmp_path / f"image{index}.tif", image.clip(0, 255).astype(np.uint8))
        make_raster(tmp_path / f"label{index}.tif", np.where(label == 1, 20, 10).astype(np.uint8))
    entries = [{"image": f"image{index}.tif", "label": f"label{index}.tif"} for index in range(2)]
    path = tmp_path / "run.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "name": "both",
                "output": str(tmp_path / "run"),
                "classes": [{"name": "dark"}, {"name": "bright"}],
                "label_values": {10: "dark", 20: "bright"},
                "scenes": {"root": str(tmp_path), "train": entries[:1], "validate": entries[1:], "predict": entries},
                "model": {"encoder": "resnet18", "options": {"encoder_depth": 3, "decoder_channels": [16, 16, 8]}},
                "training": {"epochs": 2, "steps_per_epoch": 4, "tile": 64, "batch_size": 4},
                "inference": {"core": 64, "halo": 16},
            }
        )
    )
    return path


@pytest.mark.ray
def test_a_run_is_trained_mapped_evaluated_and_reported(config: Path, ray_cluster: None) -> None:
    code, said = segbatch("run", str(config))
    assert code == 0, said
    run = config.parent / "run"
    metrics = json.loads((run / "report" / "metrics.json").read_text())
    total = np.zeros((2, 2), int)
    for index in range(2):
        with (
            rasterio.open(run / "masks" / f"image{index}.tif") as mask,
            rasterio.open(config.parent / f"label{index}.tif") as label,
        ):
            total += confusion_matrix(label.read(1).ravel() == 20, mask.read(1).ravel() == 1)
    assert metrics["confusion"] == total.tolist()
    assert total.sum() == 2 * HEIGHT * WIDTH
    assert [scene["status"] for scene in metrics["scenes"]] == ["done", "done"]
    assert metrics["miou"] > 0.5  # guessing gives a third
    record = json.loads((run / "run.json").read_text())
    assert (record["training"]["state"], record["mapping"]["state"]) == ("done", "done")
    assert (run / "report" / "report.html").is_file()

    # Doing it again does nothing, and going on is possible with other settings of the mapping's engine.
    before = (run / "bundle" / "model.safetensors").stat().st_mtime_ns
    code, said = segbatch("run", str(config))
    assert code == 0, said
    assert "is trained already" in said
    assert "blocks are done already" in said
    assert (run / "bundle" / "model.safetensors").stat().st_mtime_ns == before
    assert json.loads((run / "report" / "metrics.json").read_text()) == metrics


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("scenes.predict=[]", "scenes.predict is empty"),
        ("scenes.predict.1.image=gone.tif", "gone.tif does not exist"),
        ("scenes.predict.0.label=gone.tif", "gone.tif does not exist"),
        ("scenes.validate=[]", "scenes.validate is empty"),
        ("scenes.bands=[3]", "band 3 asked for"),
        ("inference.core=0", "inference.core"),
    ],
)
def test_bad_input_of_any_step_is_found_before_the_first(
    config: Path, monkeypatch: pytest.MonkeyPatch, override: str, expected: str
) -> None:
    def no_ray(address: str) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(run_module, "ray_session", no_ray)
    monkeypatch.setattr(train_module, "ray_session", no_ray)
    code, said = segbatch("run", str(config), "--set", override)
    assert code == 2, said
    assert expected in said


def test_scenes_to_map_that_differ_from_the_training_are_found_before_it(
    config: Path, make_raster: WriteRaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_raster(config.parent / "other.tif", np.ones((5, HEIGHT, WIDTH), np.uint8))
    monkeypatch.setattr(run_module, "ray_session", lambda address: pytest.fail("Ray was started"))
    code, said = segbatch("run", str(config), "--set", "scenes.predict=[{image: other.tif}]")
    assert code == 2
    assert "other.tif has 5 bands" in said
