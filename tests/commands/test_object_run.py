"""Runs whose files are in an object store: as those in a folder, byte for byte, and through every kill."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import obstore
import pytest
import rasterio
import xarray as xr
from numpy.typing import NDArray

from segbatch.commands import only_new
from segbatch.commands.evaluate import evaluate
from segbatch.commands.folder import RunFolder
from segbatch.commands.inform import inform
from segbatch.commands.lock import hold
from segbatch.commands.look import look
from segbatch.commands.only_new import map_new
from segbatch.commands.predict import predict
from segbatch.commands.report import report
from segbatch.commands.request import Request
from segbatch.commands.split import warn_of_known
from segbatch.errors import InputError
from segbatch.inference.ledger import ROWS_OF_AN_OBJECT, LedgerRow, LedgerWriter, forget_scenes, read_ledger
from segbatch.masks import is_store
from segbatch.scenes import SceneRef
from segbatch.scenes import remote as remote_files
from segbatch.scenes.catalog import expand
from segbatch.scenes.raster import gdal_options
from segbatch.storage import PARTIAL, ObjectPath, place, remove_tree, write_whole
from tests.killing import Killed, kill_at

MakeRaster = Callable[..., str]
MakeRequest = Callable[..., Request]
Paint = Callable[..., NDArray[np.uint8]]


def objects(root: str) -> dict[str, bytes]:
    """The content of all objects of a run by their name in it."""
    run = ObjectPath(root)
    return {path.relative_to(run).as_posix(): path.read_bytes() for path, _ in run.walk_objects()}


def masks(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name.startswith("masks/")}


def names(files: dict[str, bytes]) -> set[str]:
    """All but the ledger's, whose names are drawn by lot."""
    return {name for name in files if not (name.startswith("ledger/") and name.endswith(".jsonl"))}


@pytest.fixture
def images(tmp_path: Path, make_raster: MakeRaster, paint: Paint) -> dict[str, str]:
    """One of several blocks with nodata, and a small one."""
    large = paint(600, 640, 1)
    large[:, :300, :300] = 0
    at = rasterio.Affine(1, 0, 500000, 0, -1, 5000000)
    return {
        "large": make_raster(tmp_path / "large.tif", large, nodata=0, crs="EPSG:32633", transform=at),
        "small": make_raster(tmp_path / "small.tif", paint(90, 70, 2)),
    }


@pytest.fixture
def labels(tmp_path: Path, make_raster: MakeRaster) -> dict[str, str]:
    rng = np.random.default_rng(0)
    at = rasterio.Affine(1, 0, 500000, 0, -1, 5000000)
    large = rng.integers(0, 4, (600, 640), np.uint8)
    return {"large": make_raster(tmp_path / "large_label.tif", large, crs="EPSG:32633", transform=at)}


def test_a_run_is_the_one_of_a_folder(
    remote: str,
    tmp_path: Path,
    images: dict[str, str],
    labels: dict[str, str],
    make_request: MakeRequest,
    files_in: Callable[[Path], dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inference = {"block_mb": 1, "probabilities": True}
    ours = predict(make_request(tmp_path / "run", images, labels, inference=inference))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    request = make_request(place(remote), images, labels, inference=inference)
    theirs = predict(request)
    assert {**ours, "scenes": 0} == {**theirs, "scenes": 0}
    here, there = files_in(tmp_path / "run"), objects(remote)
    assert masks(there) == masks(here)
    assert names(there) == names(here)
    rows, ledger = read_ledger(tmp_path / "run" / "ledger"), read_ledger(place(remote) / "ledger")
    assert {key: row.checksum for key, row in ledger.items()} == {key: row.checksum for key, row in rows.items()}
    # Pictures are made of what is in the store.
    assert there["report/large.png"] == here["report/large.png"]
    assert not any(b"planted" in content for content in there.values())
    assert list((tmp_path / "cwd").iterdir()) == []

    # Again there is nothing to do, and nothing changes but what the account says.
    assert predict(request) == theirs
    again = objects(remote)
    assert {name: again[name] for name in again if name != "run.json"} == {
        name: there[name] for name in there if name != "run.json"
    }
    found = look(RunFolder.of(remote))
    assert found.state == "done"
    assert found.mapping is not None
    assert found.mapping.done == found.mapping.blocks == len(rows)
    assert dict(inform(remote))["mapping"] == "done"
    assert dict(inform(f"{remote}/masks/large.zarr"))["what"] == "class mask (Zarr)"
    assert "water" in dict(inform(f"{remote}/masks/large.tif"))["classes"]
    assert report(RunFolder.of(remote)) == theirs


def test_other_programs_read_the_masks(remote: str, images: dict[str, str], make_request: MakeRequest) -> None:
    from zarr.storage import ObjectStore

    predict(make_request(place(remote), images))
    with rasterio.Env(**gdal_options()), rasterio.open(f"{remote}/masks/large.tif") as dataset:
        found = dataset.read(1)
    store = ObjectStore(obstore.store.from_url(f"{remote}/masks/large.zarr", client_options={"allow_http": True}))
    with xr.open_zarr(store, consolidated=False, mask_and_scale=False) as dataset:
        np.testing.assert_array_equal(dataset["class_mask"].values, found)
    assert (found[:300, :300] == 255).all()


CHANGES = tuple((obstore, name) for name in ("put", "copy", "delete", "open_writer"))
"""All that changes the store."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_kill_at_any_change_of_the_store_loses_nothing(
    bucket: str, remote: str, images: dict[str, str], make_request: MakeRequest
) -> None:
    """Each nineteenth change, so that all kinds of them are met within a few seconds."""

    def request(root: str) -> Request:
        return make_request(place(root), images, inference={"block_mb": 1})

    predict(request(f"{remote}/clean"))
    clean = objects(f"{remote}/clean")
    number, ended = 1, False
    while not ended:
        with pytest.MonkeyPatch.context() as patch:
            kill_at(number, patch, CHANGES)
            try:
                predict(request(f"{remote}/{number}"))
                ended = True
            except Killed:
                pass
        found = objects(f"{remote}/{number}")
        for cog in ("masks/large.tif", "masks/small.tif"):
            assert found.get(cog) in (None, clean[cog])  # never half of it
        if not ended:
            (ObjectPath(remote) / str(number) / ".lock").unlink(missing_ok=True)  # of the dead: another test's affair
            predict(request(f"{remote}/{number}"))
            found = objects(f"{remote}/{number}")
        assert masks(found) == masks(clean)
        assert names(found) == names(clean)
        number += 19
    assert number > 50


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_schedule_maps_what_is_new_through_kills(
    remote: str, tmp_path: Path, make_raster: MakeRaster, paint: Paint, make_request: MakeRequest
) -> None:
    def image(name: str, size: int) -> str:
        """Another size is another file; the same one is not touched."""
        folder = tmp_path / "images"
        if not (tmp_path / f"{name}{size}.tif").exists():
            make_raster(tmp_path / f"{name}{size}.tif", paint(size, size, size))
        folder.mkdir(exist_ok=True)
        shutil.copy2(tmp_path / f"{name}{size}.tif", folder / f"{name}.tif")
        return str(folder / f"{name}.tif")

    def run(root: str, **sizes: int) -> only_new.Outcome:
        return map_new(make_request(place(root), {name: image(name, size) for name, size in sizes.items()}))

    assert run(f"{remote}/plain", a=70, b=80).run.new == 2
    assert run(f"{remote}/plain", a=70, b=80).run.skipped == 2
    second = run(f"{remote}/plain", b=90, c=60).run
    assert (second.new, second.changed, second.vanished) == (1, 1, 1)
    clean = objects(f"{remote}/plain")
    assert {name for name in clean if name.endswith(".tif")} == {f"masks/{name}.tif" for name in "abc"}

    number, ended = 1, False
    while not ended:
        root = f"{remote}/{number}"
        run(root, a=70, b=80)
        with pytest.MonkeyPatch.context() as patch:
            kill_at(number, patch, CHANGES)
            try:
                run(root, b=90, c=60)
                ended = True
            except Killed:
                pass
        if not ended:
            (ObjectPath(root) / ".lock").unlink(missing_ok=True)
            run(root, b=90, c=60)
        found = objects(root)
        assert masks(found) == masks(clean), number
        assert not any(name.startswith(".next/") for name in found), number
        assert {name: row.checksum for name, row in read_ledger(place(root) / "ledger").items()} == {
            name: row.checksum for name, row in read_ledger(place(remote) / "plain" / "ledger").items()
        }
        number += 37
    assert number > 40


def test_a_schedule_over_images_in_the_store_sees_what_changed(
    remote: str,
    tmp_path: Path,
    make_raster: MakeRaster,
    paint: Paint,
    make_request: MakeRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Runs are processes of their own; here they are not, and GDAL keeps what it has read.
    monkeypatch.setenv("CPL_VSIL_CURL_NON_CACHED", "/vsis3/bucket")

    def send(name: str, seed: int) -> None:
        """Of the same size, whatever is in it."""
        file = make_raster(tmp_path / f"{seed}.tif", paint(70, 80, seed), compress="none")
        write_whole(place(remote) / f"{name}.tif", Path(file).read_bytes())

    def run() -> only_new.Outcome:
        listed = expand(f"{remote}/*.tif", "/", may_be_none=True)
        return map_new(make_request(tmp_path / "run", {ref.id: ref.image for ref in listed}))

    def fail(uri: str, bucket: str) -> None:
        raise OSError(5, "timed out", uri)

    send("a", 1)
    send("b", 2)
    assert run().run.new == 2
    assert run().run.skipped == 2
    before = (tmp_path / "run" / "masks" / "b.tif").read_bytes()
    send("b", 3)
    (ObjectPath(remote) / "a.tif").unlink()
    found = run().run
    assert (found.changed, found.skipped, found.vanished) == (1, 0, 1)
    assert (tmp_path / "run" / "masks" / "b.tif").read_bytes() != before

    # A store that is down for a moment costs nothing but the exit code.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote_files, "_tag_in_a_store", fail)
        ((scene, why),) = run().failed
    assert (scene, "whether it has changed cannot be told" in why) == ("b", True)
    assert (tmp_path / "run" / "masks" / "b.tif").is_file()
    assert run().run.skipped == 1
    assert "not mapped again" not in capsys.readouterr().err

    # Nor do credentials that are missing for a night; what changed meanwhile is seen when they are back.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segbatch.commands.conclude.etag", lambda _: None)
        send("b", 2)
        assert run().run.skipped == 1
    assert f"1 scene such as {remote}/b.tif: the server does not tell" in capsys.readouterr().err
    assert run().run.changed == 1

    # Down when the mapping is done: the mask stays, and whether the file changed while it was read is seen later.
    send("b", 3)
    tell, asked = remote_files._tag_in_a_store, []

    def tell_once(uri: str, bucket: str) -> object:
        asked.append(uri)
        return tell(uri, bucket) if len(asked) == 1 else fail(uri, bucket)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote_files, "_tag_in_a_store", tell_once)
        assert run().run.changed == 1
    assert len(asked) == 2
    assert run().run.skipped == 1


def test_what_was_mapped_without_a_schedule_is_not_mapped_again_by_one(
    remote: str, tmp_path: Path, images: dict[str, str], make_request: MakeRequest
) -> None:
    write_whole(place(remote) / "small.tif", Path(images["small"]).read_bytes())
    request = make_request(tmp_path / "run", {"small": f"{remote}/small.tif"})
    predict(request)
    assert map_new(request).run.skipped == 1
    assert map_new(request).document is None  # the index knows the tag by now
    write_whole(place(remote) / "small.tif", Path(images["small"]).read_bytes() + b" ")
    assert map_new(request).run.changed == 1


def test_a_ledger_of_many_rows_is_few_objects(remote: str) -> None:
    folder = place(remote)
    writer = LedgerWriter(folder)
    rows = [
        LedgerRow.failed("scene", number, "é", num_classes=2, started=1.5)
        for number in range(2 * ROWS_OF_AN_OBJECT + 3)
    ]
    for row in rows[:5]:
        writer.append(row)
        assert len(read_ledger(folder)) == row.block + 1  # on return it is there
    for row in rows[5:]:
        writer.append(row)
    assert read_ledger(folder) == {("scene", row.block): row for row in rows}
    assert len(objects(remote)) == 3


def test_a_writer_whose_command_is_gone_brings_nothing_back(remote: str) -> None:
    """A worker outlives its driver; meanwhile another command has forgotten a scene, and does it again."""
    folder = place(remote)
    late = LedgerWriter(folder)
    for number in range(5):
        late.append(LedgerRow.failed("forgotten", number, "x", num_classes=2, started=1.5))
    late.append(LedgerRow.failed("kept", 0, "x", num_classes=2, started=1.5))
    forget_scenes(folder, {"forgotten"})
    late.append(LedgerRow.failed("kept", 1, "x", num_classes=2, started=1.5))
    assert set(read_ledger(folder)) == {("kept", 0), ("kept", 1)}
    remove_tree(folder)
    late.append(LedgerRow.failed("kept", 2, "x", num_classes=2, started=1.5))
    late.append(LedgerRow.failed("kept", 3, "x", num_classes=2, started=1.5))
    assert set(read_ledger(folder)) == {("kept", 2), ("kept", 3)}


def test_who_looks_writes_nothing(remote: str, images: dict[str, str], make_request: MakeRequest) -> None:
    predict(make_request(place(remote), {"small": images["small"]}))
    with hold(RunFolder.of(remote)):
        before = objects(remote)
        with pytest.MonkeyPatch.context() as patch:
            for name in ("put", "delete", "copy", "open_writer"):
                patch.setattr(obstore, name, pytest.fail)
            found = look(RunFolder.of(remote))
        assert found.is_held
        assert objects(remote) == before
    write_whole(place(remote) / f".left{PARTIAL}", b"")  # of a killed command that looked at the store's clock
    predict(make_request(place(remote), {"small": images["small"]}))
    assert set(objects(remote)) == set(before) - {".lock"}


def test_a_raster_that_only_gdal_may_read_is_one(
    remote: str, images: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_whole(place(remote) / "x.tif", Path(images["small"]).read_bytes())

    def refuse(self: ObjectPath) -> bool:
        raise PermissionError(13, "the store refuses it", str(self))

    monkeypatch.setattr(ObjectPath, "is_file", refuse)
    assert dict(inform(f"{remote}/x.tif"))["size"].startswith("70 x 90 px")
    assert not is_store(f"{remote}/x.tif")


def test_scenes_that_a_model_in_a_store_knows_are_told(
    remote: str, images: dict[str, str], labels: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_whole(place(remote) / "split.csv", f"image,label,role\n{images['large']},{labels['large']},train\n".encode())
    refs = [SceneRef("large", images["large"], label=labels["large"])]
    warn_of_known(refs, place(remote) / "split.csv")
    assert "was trained or validated on large" in capsys.readouterr().err


def test_what_is_in_the_bucket_is_taken_from_there(
    remote: str, tiny_bundle: Path, images: dict[str, str], labels: dict[str, str], make_request: MakeRequest
) -> None:
    """A bundle, and class masks to evaluate."""
    for file in tiny_bundle.iterdir():
        if file.is_file():
            write_whole(place(remote) / "bundle" / file.name, file.read_bytes())
    images = {"large": images["large"]}
    whole = predict(make_request(place(remote) / "run", images, labels, bundle=place(remote) / "bundle"))
    assert dict(inform(f"{remote}/bundle"))["what"] == "bundle"
    for number, mask in enumerate((f"{remote}/run/masks/large.tif", f"{remote}/run/masks/large.zarr")):
        document = evaluate(
            [mask],
            [labels["large"]],
            RunFolder.of(f"{remote}/evaluation{number}"),
            classes=None,
            label_map=None,
            engine="inline",
            address="auto",
        )
        assert document["confusion"] == whole["confusion"]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_workers_write_to_the_store_themselves(
    remote: str,
    tmp_path: Path,
    images: dict[str, str],
    make_request: MakeRequest,
    files_in: Callable[[Path], dict[str, bytes]],
) -> None:
    inference = {"block_mb": 1}
    predict(make_request(tmp_path / "run", images, inference=inference))
    predict(make_request(place(remote), images, inference={**inference, "engine": "ray"}))
    here, there = files_in(tmp_path / "run"), objects(remote)
    assert masks(there) == masks(here)
    assert names(there) == names(here)


def test_the_model_in_int8_is_there_too(
    remote: str, tmp_path: Path, tiny_bundle: Path, images: dict[str, str], make_request: MakeRequest
) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    how = {"core": "auto", "backend": "onnx", "precision": "int8"}
    predict(make_request(tmp_path / "run", images, bundle=bundle, inference=how))
    predict(make_request(place(remote) / "run", images, bundle=bundle, inference=how))
    (model,) = (tmp_path / "run").glob("model-int8-*.onnx")
    found = objects(f"{remote}/run")
    assert found[model.name] == model.read_bytes()
    assert masks(found) == {
        str(file.relative_to(tmp_path / "run")): file.read_bytes()
        for file in (tmp_path / "run" / "masks").rglob("*")
        if file.is_file()
    }


def test_what_cannot_be_done_there_is_said_before_it_begins(
    remote: str, images: dict[str, str], make_request: MakeRequest
) -> None:
    with pytest.raises(InputError, match="cannot be written to") as caught:
        predict(make_request(place("s3://nowhere/run"), images))
    assert "\n" not in str(caught.value)
    assert "planted" not in str(caught.value)


def test_a_folder_that_holds_something_else_is_refused(
    remote: str, images: dict[str, str], make_request: MakeRequest
) -> None:
    write_whole(place(remote) / "masks" / "mine.tif", b"x")
    with pytest.raises(InputError, match="not of a run"):
        predict(make_request(place(remote), images))
    assert json.loads(json.dumps(sorted(objects(remote)))) == ["masks/mine.tif"]
