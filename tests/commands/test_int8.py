"""A run in int8: quantized once with windows of its scenes, and gone on with the same model."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from segbatch.commands import only_new
from segbatch.commands.predict import predict
from segbatch.commands.request import Request
from segbatch.errors import InputError

pytest.importorskip("onnxruntime")

MakeRequest = Callable[..., Request]


def test_a_run_in_int8_and_its_resume(
    tmp_path: Path,
    tiny_bundle: Path,
    make_raster: Callable[..., str],
    paint: Callable[..., NDArray[np.uint8]],
    make_request: MakeRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    images = {
        name: make_raster(tmp_path / f"{name}.tif", paint(height, 200)) for name, height in (("a", 150), ("b", 90))
    }
    how = {"core": "auto", "backend": "onnx", "precision": "int8"}
    plain = predict(make_request(tmp_path / "plain", images, bundle=bundle))
    predict(make_request(tmp_path / "run", images, bundle=bundle, inference=how))
    assert "times eager float32; the classes of" in capsys.readouterr().err
    chosen = json.loads((tmp_path / "run" / "run.json").read_text())["mapping"]["chosen"]
    assert (chosen["settings"]["precision"], chosen["settings"]["backend"]) == ("int8", "onnx")
    assert 0.5 < chosen["agreement"] <= 1
    (model,) = (tmp_path / "run").glob("model-int8-*.onnx")
    masks = {name: (tmp_path / "run" / "masks" / f"{name}.tif").read_bytes() for name in images}
    with rasterio.open(tmp_path / "run" / "masks" / "a.tif") as found, \
            rasterio.open(tmp_path / "plain" / "masks" / "a.tif") as expected:  # fmt: skip
        assert (found.read() == expected.read()).mean() > 0.5
    assert plain["classes"] is not None
    # Killed, and the model lost too: the same windows give the same model and the same masks.
    for ledger in (tmp_path / "run" / "ledger").glob("*.jsonl"):
        ledger.unlink()
    for name in images:
        (tmp_path / "run" / "masks" / f"{name}.tif").unlink()
    content = model.read_bytes()
    model.unlink()
    predict(make_request(tmp_path / "run", images, bundle=bundle, inference=how))
    assert model.read_bytes() == content
    assert {name: (tmp_path / "run" / "masks" / f"{name}.tif").read_bytes() for name in images} == masks
    # Another precision is another run.
    with pytest.raises(InputError, match=r"differs in .*precision"):
        predict(make_request(tmp_path / "run", images, bundle=bundle, inference={**how, "precision": "float32"}))
    predict(make_request(tmp_path / "run", images, bundle=bundle, overwrite=True))
    assert not list((tmp_path / "run").glob("model-int8-*.onnx"))


def test_a_schedule_goes_over_to_int8_and_meets_larger_scenes(
    tmp_path: Path,
    tiny_bundle: Path,
    make_raster: Callable[..., str],
    paint: Callable[..., NDArray[np.uint8]],
    make_request: MakeRequest,
) -> None:
    """What is quantized takes windows of one shape."""
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    sizes = {"a": (90, 70), "b": (300, 320)}
    images = {name: make_raster(tmp_path / f"{name}.tif", paint(*size)) for name, size in sizes.items()}

    def run(names: str, **inference: str) -> only_new.Outcome:
        listed = {name: images[name] for name in names}
        return only_new.map_new(make_request(tmp_path / "run", listed, bundle=bundle, inference=inference))

    assert run("a").run.new == 1
    how = {"core": "auto", "backend": "onnx", "precision": "int8"}
    assert run("a", **how).run.changed == 1
    found = run("ab", **how).run
    assert (found.new, found.skipped, found.failed) == (1, 1, 0)
