"""A run's record, its folder, and the report that is made from nothing else."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from segbatch.classes import ClassTable, LabelMap
from segbatch.commands.folder import RunFolder, write_json
from segbatch.commands.predict import predict
from segbatch.commands.record import RunRecord, SceneRecord, pixel_area
from segbatch.commands.report import report
from segbatch.commands.request import Request
from segbatch.errors import InputError
from segbatch.scenes import SceneInfo, SceneRef

RECORD = RunRecord(
    name="a run",
    classes=ClassTable.from_items([("water", "#1f78b4"), ("wald", None)]),
    label_map=LabelMap(2, ((3, 1), (7, 0))),
    scenes=(
        SceneRecord("a", "site", "/data/a.tif", "/data/l.tif", "masks/a.tif", 20, 10, 2, 0.36, None),
        SceneRecord("b", None, None, None, "masks/b.tif", 5, 6, 1, None, 0.25),
    ),
    nodata=0.0,
    facts=(("core", "64 x 64 px"),),
)


@pytest.mark.parametrize(
    "label_map",
    [
        LabelMap(2),
        LabelMap(2, ((3, 1), (7, 0))),
        LabelMap(2, ((3, 1), ("#00ff00", 0), ("lake", 0)), attribute="kind", background=1),
    ],
)
def test_a_record_survives_the_disk(tmp_path: Path, label_map: LabelMap) -> None:
    record = replace(RECORD, label_map=label_map)
    record.save(RunFolder(tmp_path))
    found = RunRecord.load(RunFolder(tmp_path))
    assert found == record
    assert found.label_map.classes == record.classes


def test_a_record_from_before_there_were_vector_labels_is_read(tmp_path: Path) -> None:
    RECORD.save(RunFolder(tmp_path))
    path = tmp_path / "ledger" / "scenes.json"
    data = json.loads(path.read_text())
    del data["label_attribute"], data["label_background"]
    path.write_text(json.dumps(data))
    assert RunRecord.load(RunFolder(tmp_path)) == RECORD


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"name": "x"}'])
def test_a_damaged_record_is_said(tmp_path: Path, content: str) -> None:
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger" / "scenes.json").write_text(content)
    with pytest.raises(InputError, match="is not a run's record"):
        RunRecord.load(RunFolder(tmp_path))


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        report(RunFolder(tmp_path / "x"))
    with pytest.raises(InputError, match="nothing was trained, mapped or evaluated there yet"):
        report(RunFolder(tmp_path))


@pytest.mark.parametrize(
    ("crs", "expected"),
    [("EPSG:32633", 0.5 * 2), ("EPSG:2263", 0.5 * 2 * 0.3048006096**2), ("EPSG:4326", None), (None, None)],
)
def test_the_area_of_a_pixel(crs: str | None, expected: float | None) -> None:
    wkt = None if crs is None else CRS.from_string(crs).to_wkt()
    info = SceneInfo("a", 9, 9, "uint8", ("",), None, None, wkt, Affine(0.5, 0, 0, 0, -2, 0), 1, 1)
    area = pixel_area(info)
    assert area == (None if expected is None else pytest.approx(expected, rel=1e-9))
    assert SceneRecord.of(SceneRef("a", "a"), info, image=None, mask=Path("m"), blocks=1).pixel_area_m2 == area


def test_a_report_needs_nothing_but_the_folder(
    tmp_path: Path,
    make_raster: Callable[..., str],
    paint: Callable[..., NDArray[np.uint8]],
    make_request: Callable[..., Request],
) -> None:
    label = make_raster(tmp_path / "l.tif", np.zeros((70, 90), np.uint8))
    image = make_raster(tmp_path / "a.tif", paint(70, 90), crs="EPSG:32633", transform=Affine(1, 0, 0, 0, -1, 0))
    document = predict(make_request(tmp_path / "run", {"a": image}, {"a": label}))
    (tmp_path / "run").rename(tmp_path / "moved")
    shutil.rmtree(tmp_path / "moved" / "report")
    for path in (image, label):
        os.unlink(path)
    assert report(RunFolder(tmp_path / "moved")) == document
    assert (tmp_path / "moved" / "report" / "report.html").is_file()


def test_a_run_that_is_not_whole_is_not_reported_as_done(
    tmp_path: Path,
    make_raster: Callable[..., str],
    paint: Callable[..., NDArray[np.uint8]],
    make_request: Callable[..., Request],
) -> None:
    image = make_raster(tmp_path / "a.tif", paint(70, 90), crs="EPSG:32633", transform=Affine(1, 0, 0, 0, -1, 0))
    predict(make_request(tmp_path / "run", {"a": image}))
    (ledger,) = (tmp_path / "run" / "ledger").glob("*.jsonl")
    ledger.write_text("")
    document = report(RunFolder(tmp_path / "run"))
    assert (document["failed"], document["unfinished"]) == (
        [], [{"id": "a", "image": image, "left": "1 of 1 block still to do"}],
    )  # fmt: skip
    assert (document["scenes"][0]["status"], document["scenes"][0]["mask"]) == ("unfinished", None)


def test_run_json_is_read_back_and_kept_whole(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "new" / "run")
    assert folder.read() == {}
    folder.create()
    folder.update(name="x", mapping={"state": "running"})
    folder.update(training={"state": "done"})
    content = folder.read()
    assert (content["name"], content["mapping"], content["training"]["state"]) == ("x", {"state": "running"}, "done")
    assert "torch" in content["versions"]
    (folder.path / "run.json").write_text("{")
    with pytest.raises(InputError, match=r"run\.json cannot be read"):
        folder.read()
    (folder.path / "run.json").write_text("[]")
    with pytest.raises(InputError, match=r"run\.json is not a run's"):
        folder.read()


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=f"The output {tmp_path / 'file'} is a file: name a folder"):
        RunFolder(tmp_path / "file").create()
    path = tmp_path / "file" / "below"
    with pytest.raises(InputError, match=f"The output folder {path} cannot be written to"):
        RunFolder(path).create()


def test_sweeping_takes_temporary_files_only(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    kept = ["run.json", "ledger/a.jsonl", "masks/a.tif", "report/report.html", "masks/partial.zarr/zarr.json"]
    swept = [".run.json.12.partial", "ledger/scenes.json.ab.partial", "masks/.a.tif.0f.partial/plain.tif", "report/x.png.partial"]  # fmt: skip  # noqa: E501
    for name in (*kept, *swept):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    folder.sweep()
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)


def test_json_replaces_the_old_file_at_once(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
