"""Mapping scenes in this process: the files, the figures, and what is refused."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score, precision_recall_fscore_support

from segbatch.classes import ClassTable, LabelMap
from segbatch.commands.plan import plan
from segbatch.commands.predict import predict
from segbatch.commands.request import Request, with_labels
from segbatch.errors import InputError
from segbatch.models.card import read_card
from segbatch.scenes import SceneRef

MakeRaster = Callable[..., str]
Paint = Callable[..., NDArray[np.uint8]]
MakeRequest = Callable[..., Request]

AT = Affine(0.6, 0, 399960.3, 0, -0.6, 5000040.7)


def class_mask(folder: Path, scene: str) -> NDArray[np.uint8]:
    with rasterio.open(folder / "masks" / f"{scene}.tif") as dataset:
        return dataset.read(1)


@pytest.fixture
def scenes(tmp_path: Path, make_raster: MakeRaster, paint: Paint) -> dict[str, str]:
    """Three sizes: several windows, odd; smaller than a window; one with a map and nodata."""
    mapped = paint(210, 331, 3)
    mapped[:, 100:, :90] = 0
    return {
        "odd": make_raster(tmp_path / "odd.tif", paint(301, 143, 1)),
        "small": make_raster(tmp_path / "small.png", paint(21, 9, 2)),
        "mapped": make_raster(tmp_path / "mapped.tif", mapped, crs="EPSG:32633", transform=AT, nodata=0),
    }


def test_an_alpha_band_that_the_model_takes_as_data_is_named(
    tmp_path: Path,
    make_raster: MakeRaster,
    paint: Paint,
    make_request: MakeRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    values = paint(70, 90, 1)
    image = make_raster(tmp_path / "a.tif", values, photometric="minisblack", crs="EPSG:32633", transform=AT)
    with rasterio.open(image, "r+") as file:
        file.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.alpha]
    predict(make_request(tmp_path / "told", {"a": image}))
    assert "takes 3 bands, so a band that is tagged alpha is read as " in capsys.readouterr().err
    predict(make_request(tmp_path / "asked", {"a": image}, bands=[1, 2, 3]))
    assert "alpha" not in capsys.readouterr().err
    np.testing.assert_array_equal(class_mask(tmp_path / "told", "a"), class_mask(tmp_path / "asked", "a"))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_cog_and_zarr_agree_and_lie_where_the_scene_lies(
    tmp_path: Path, scenes: dict[str, str], make_request: MakeRequest
) -> None:
    document = predict(make_request(tmp_path / "run", scenes))
    for name, path in scenes.items():
        store = zarr.open_array(tmp_path / "run" / "masks" / f"{name}.zarr" / "class_mask", mode="r")
        with rasterio.open(path) as scene, rasterio.open(tmp_path / "run" / "masks" / f"{name}.tif") as cog:
            found = cog.read(1)
            np.testing.assert_array_equal(store[:], found)
            assert found.shape == scene.shape
            assert (cog.crs, cog.transform) == (scene.crs, scene.transform)
            np.testing.assert_array_equal(found == 255, ~scene.dataset_mask().astype(bool))
    with xr.open_zarr(tmp_path / "run" / "masks" / "mapped.zarr", consolidated=False) as store:
        reference = store["spatial_ref"].attrs
        assert Affine.from_gdal(*map(float, reference["GeoTransform"].split())) == AT
        assert rasterio.crs.CRS.from_wkt(reference["crs_wkt"]) == rasterio.crs.CRS.from_epsg(32633)
    assert [scene["status"] for scene in document["scenes"]] == ["unlabelled"] * 3
    assert document["miou"] is None
    assert len({int(v) for v in np.unique(class_mask(tmp_path / "run", "odd"))}) > 1


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_block_size_and_formats_change_no_byte(
    tmp_path: Path, make_raster: MakeRaster, paint: Paint, make_request: MakeRequest
) -> None:
    images = {"a": make_raster(tmp_path / "a.tif", paint(640, 1130, 1))}

    def mapped(name: str, **inference: Any) -> NDArray[np.uint8]:
        predict(make_request(tmp_path / name, images, inference=inference))
        return class_mask(tmp_path / name, "a")

    plain = mapped("plain")
    np.testing.assert_array_equal(mapped("blocks", block_mb=1), plain)
    np.testing.assert_array_equal(mapped("cog", format=["cog"]), plain)
    assert len(list((tmp_path / "blocks" / "masks" / "a.zarr" / "class_mask" / "c").rglob("*"))) > 2
    assert not (tmp_path / "cog" / "masks" / "a.zarr").exists()
    # Another batch size adds up the same floats in another order; where a window stands in a batch must not matter.
    batches = mapped("batches", batch_size=3)
    np.testing.assert_array_equal(mapped("batches and blocks", batch_size=3, block_mb=1), batches)
    assert (batches != plain).mean() < 1e-4


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_figures_are_scikit_learn_s(
    tmp_path: Path, make_raster: MakeRaster, paint: Paint, make_request: MakeRequest
) -> None:
    rng = np.random.default_rng(8)
    images, labels, truth, found = {}, {}, [], []
    values = {7: "water", 9: "forest", 200: "town"}
    for number, (height, width) in enumerate([(150, 170), (64, 201)]):
        pixels = paint(height, width, number)
        pixels[:, :20] = 0
        label = rng.choice(np.array([7, 9, 200, 3], np.uint8), (height, width), p=[0.3, 0.3, 0.2, 0.2])
        name = f"s{number}"
        images[name] = make_raster(tmp_path / f"{name}.tif", pixels, nodata=0)
        labels[name] = make_raster(tmp_path / f"{name}_label.tif", label)
        truth.append(label)
    ids = {"water": 0, "forest": 1, "field": 2, "town": 3}
    label_map = LabelMap(4, tuple((value, ids[name]) for value, name in values.items()))
    document = predict(make_request(tmp_path / "run", images, labels, label_map=label_map))

    for name, label in zip(images, truth, strict=True):
        mask = class_mask(tmp_path / "run", name)
        counted = (mask != 255) & np.isin(label, list(values))
        lookup = {value: ids[name] for value, name in values.items()}
        found.append((np.vectorize(lookup.get)(label[counted]), mask[counted]))
    y_true, y_pred = (np.concatenate(part) for part in zip(*found, strict=True))
    metrics = json.loads((tmp_path / "run" / "report" / "metrics.json").read_text())
    assert metrics == document
    np.testing.assert_array_equal(metrics["confusion"], confusion_matrix(y_true, y_pred, labels=range(4)))
    iou = jaccard_score(y_true, y_pred, labels=range(4), average=None, zero_division=0)
    precision, recall, dice, support = precision_recall_fscore_support(y_true, y_pred, labels=range(4), zero_division=0)
    for index, item in enumerate(metrics["classes"]):
        assert item["name"] == list(ids)[index]
        assert item["iou"] == pytest.approx(iou[index], abs=1e-12)
        assert item["dice"] == pytest.approx(dice[index], abs=1e-12)
        assert item["precision"] == pytest.approx(precision[index], abs=1e-12)
        if support[index]:
            assert item["recall"] == pytest.approx(recall[index], abs=1e-12)
        else:
            assert item["recall"] is None
        assert item["support"] == support[index]
    assert (y_pred == 2).any()  # else "field" would have no figure at all
    assert metrics["miou"] == pytest.approx(iou.mean(), abs=1e-12)
    assert metrics["pixel_accuracy"] == pytest.approx(accuracy_score(y_true, y_pred), abs=1e-12)
    assert metrics["counted_pixels"] == len(y_true)
    for scene, (scene_true, scene_pred) in zip(metrics["scenes"], found, strict=True):
        expected = jaccard_score(scene_true, scene_pred, labels=range(4), average=None, zero_division=0)
        np.testing.assert_allclose(scene["iou"], expected, atol=1e-12)


def test_bands_nodata_and_types_come_from_the_request(
    tmp_path: Path, make_raster: MakeRaster, paint: Paint, make_request: MakeRequest
) -> None:
    values = np.concatenate([paint(70, 90, 1), paint(70, 90, 2)])
    values[:, 10:30, 10:30] = 5
    names = ["b1", "b2", "b3", "red", "green", "blue"]
    image = make_raster(
        tmp_path / "a.tif", values, names=names, photometric="minisblack", crs="EPSG:32633", transform=AT
    )
    by_name = make_request(tmp_path / "names", {"a": image}, bands=["Blue", "red", 5], nodata=5)
    predict(by_name)
    reordered = make_raster(tmp_path / "b.tif", values[[5, 3, 4]], crs="EPSG:32633", transform=AT)
    predict(make_request(tmp_path / "order", {"a": reordered}, nodata=5))
    found = class_mask(tmp_path / "names", "a")
    np.testing.assert_array_equal(found, class_mask(tmp_path / "order", "a"))
    np.testing.assert_array_equal(found == 255, (values[[5, 3, 4]] == 5).all(axis=0))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_polygons_and_colours_give_the_figures_of_a_raster(
    tmp_path: Path, make_raster: MakeRaster, paint: Paint, make_request: MakeRequest
) -> None:
    """With the bundle's own classes: polygons by their names, colours by their colours; and the report shows both."""
    ids = np.repeat(np.repeat(np.random.default_rng(3).integers(0, 4, (5, 6), np.uint8), 30, axis=0), 30, axis=1)
    image = make_raster(tmp_path / "a.tif", paint(150, 180))
    card = read_card(make_request(tmp_path, {}).bundle)
    features = [
        {
            "type": "Feature",
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[x, y], [x + 30, y], [x + 30, y + 30], [x, y + 30], [x, y]]],
            },
            "properties": {"classification": {"name": card.classes.names[ids[y, x]].upper()}},
        }
        for x in range(0, 180, 30)
        for y in range(0, 150, 30)
    ]
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    colors = np.moveaxis(card.classes.palette()[ids], -1, 0)
    labels = {
        "ids": make_raster(tmp_path / "ids.tif", ids),
        "colours": make_raster(tmp_path / "colours.png", colors),
        "polygons": str(tmp_path / "a.geojson"),
    }
    found = {name: predict(make_request(tmp_path / name, {"a": image}, {"a": label})) for name, label in labels.items()}
    assert found["ids"]["counted_pixels"] == ids.size
    pictures = {name: (tmp_path / name / "report" / "a.png").read_bytes() for name in labels}
    for name in ("colours", "polygons"):
        assert found[name]["confusion"] == found["ids"]["confusion"]
        assert pictures[name] == pictures["ids"]


def test_the_bundle_s_colours_count_whatever_the_configuration_says(
    tmp_path: Path, make_raster: MakeRaster, paint: Paint, make_request: MakeRequest
) -> None:
    """They are in the run's fingerprint, by way of the bundle's hash."""
    image = make_raster(tmp_path / "a.tif", paint(40, 50))
    other = ClassTable.from_items([(name, f"#00000{index}") for index, name in enumerate("wxyz")])
    planned = plan(make_request(tmp_path / "run", {"a": image}, label_map=LabelMap.from_names({7: "x"}, other)))
    assert planned.label_map.classes == planned.card.classes
    assert planned.label_map.values == ((7, 1),)


def test_labels_are_paired_in_order() -> None:
    refs = [SceneRef("a", "a.tif"), SceneRef("b", "b.tif")]
    assert with_labels(refs, []) == refs
    paired = with_labels(refs, ["x.tif", "s3://bucket/y.tif"])
    assert [ref.label for ref in paired] == [str(Path("x.tif").absolute()), "s3://bucket/y.tif"]
    for some in (refs, refs[:1]):
        with pytest.raises(InputError, match=r"^--label l/\{nam\}.tif: nothing stands for \{nam\}. Write \{name\} for"):
            with_labels(some, ["l/{nam}.tif"])
    with pytest.raises(InputError, match="2 scenes but 1 label: give one --label for each scene"):
        with_labels(refs, ["x.tif"])


def test_planning_writes_nothing(tmp_path: Path, scenes: dict[str, str], make_request: MakeRequest) -> None:
    planned = plan(make_request(tmp_path / "run", scenes))
    assert [p.id for p in planned.scenes] == list(scenes)
    assert planned.scenes[0].core == (64, 64)
    assert planned.scenes[0].grid.lattice.halo == planned.card.halo == 16
    assert planned.label_map == LabelMap(4)
    assert not (tmp_path / "run").exists()


def test_all_that_is_wrong_is_said_before_work_begins(
    tmp_path: Path, make_raster: MakeRaster, paint: Paint, make_request: MakeRequest
) -> None:
    good = make_raster(tmp_path / "good.tif", paint(40, 50))
    (tmp_path / "text.tif").write_text("no image")
    map_options = {"crs": "EPSG:32633", "transform": AT}
    placed = make_raster(tmp_path / "placed.tif", paint(40, 50), **map_options)
    labels = {
        "size": make_raster(tmp_path / "l1.tif", np.zeros((40, 51), np.uint8)),
        "values": make_raster(tmp_path / "l2.tif", np.full((40, 50), 9, np.uint8)),
        "floats": make_raster(tmp_path / "l3.tif", np.zeros((40, 50), np.float32)),
        "crs": make_raster(tmp_path / "l4.tif", np.zeros((40, 50), np.uint8), crs="EPSG:32634", transform=AT),
    }
    images = {
        "missing": str(tmp_path / "missing.tif"),
        "text": str(tmp_path / "text.tif"),
        "folder": str(tmp_path),
        "bands": make_raster(tmp_path / "bands.tif", paint(40, 50)[:2]),
        "dtype": make_raster(tmp_path / "dtype.tif", paint(40, 50).astype(np.uint16)),
        **dict.fromkeys(labels, good),
        "crs": placed,
    }
    expected = {
        "missing": "missing.tif does not exist",
        "text": "text.tif cannot be read as an image",
        "folder": "is a folder, not an image",
        "bands": "has 2 bands, but the bundle takes 3",
        "dtype": "holds uint16, but the bundle was trained on uint8",
        "size": "is 51 x 40 pixels, but its scene .* is 50 x 40",
        "values": "has values without a class: 9",
        "floats": "holds float32; class labels are whole numbers",
        "crs": "lies elsewhere than its scene",
    }
    for name, message in expected.items():
        with pytest.raises(InputError, match=message) as caught:
            predict(make_request(tmp_path / "run", {name: images[name]}, labels))
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 2
        assert not (tmp_path / "run").exists()
    with pytest.raises(InputError) as caught:
        predict(make_request(tmp_path / "run", images, labels))
    assert len(str(caught.value).splitlines()) == 9  # one a scene, the ninth in place of what is left out


def test_what_is_chosen_for_a_model_is_told_from_what_a_scene_has(
    tmp_path: Path, make_raster: MakeRaster, paint: Paint, make_request: MakeRequest
) -> None:
    image = make_raster(tmp_path / "a.tif", paint(20, 20))
    with pytest.raises(InputError, match=r"2 bands of .*a\.tif are chosen, but the bundle takes 3.*Choose as many"):
        predict(make_request(tmp_path / "run", {"a": image}, bands=[1, 2]))


@pytest.mark.parametrize("content", ["{}", "[]", "null", "3"])
def test_a_bundle_that_does_not_say_what_it_is_leaves_no_folder(
    tmp_path: Path, make_raster: MakeRaster, paint: Paint, make_request: MakeRequest, tiny_bundle: Path, content: str
) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    (tmp_path / "bundle" / "config.json").write_text(content)
    image = make_raster(tmp_path / "a.tif", paint(20, 20))
    with pytest.raises(InputError, match="bundle is damaged: "):
        predict(make_request(tmp_path / "run", {"a": image}, bundle=tmp_path / "bundle"))
    assert not (tmp_path / "run").exists()


def test_the_folder_of_a_run_is_told_from_its_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "bundle").mkdir(parents=True)
    with pytest.raises(InputError, match=r"run is not a bundle: it has no config.json. Did you mean .*/run/bundle\?"):
        read_card(tmp_path / "run")


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "segbatch.json"])
@pytest.mark.parametrize("how", ["cut", "missing"])
def test_a_bundle_that_is_not_whole_is_refused_before_work_begins(
    tmp_path: Path,
    make_raster: MakeRaster,
    paint: Paint,
    make_request: MakeRequest,
    tiny_bundle: Path,
    file: str,
    how: str,
) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for entry in tiny_bundle.iterdir():
        if entry.name != file:
            (bundle / entry.name).symlink_to(entry)
        elif how == "cut":
            (bundle / file).write_bytes(entry.read_bytes()[: entry.stat().st_size // 2])
    image = make_raster(tmp_path / "a.tif", paint(20, 20))
    expected = "is damaged|not a bundle's card" if how == "cut" else f"it has no {file}"
    with pytest.raises(InputError, match=expected) as caught:
        predict(make_request(tmp_path / "run", {"a": image}, bundle=bundle))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_damaged_scene_fails_alone_and_is_named_everywhere(
    tmp_path: Path, make_raster: MakeRaster, paint: Paint, make_request: MakeRequest
) -> None:
    images = {
        name: make_raster(tmp_path / f"{name}.tif", paint(160, 160, seed), tiled=True, blockxsize=32, blockysize=32)
        for seed, name in enumerate(["one", "cut", "two"])
    }
    content = Path(images["cut"]).read_bytes()
    Path(images["cut"]).write_bytes(content[: len(content) * 3 // 4])
    document = predict(make_request(tmp_path / "run", images))
    assert [item["id"] for item in document["failed"]] == ["cut"]
    assert "cut.tif is damaged" in document["failed"][0]["error"]
    assert "cut.tif is damaged" in (tmp_path / "run" / "report" / "report.html").read_text()
    with open(tmp_path / "run" / "report" / "per_scene.csv", newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["unlabelled", "failed", "unlabelled"]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["mapping"]["state"] == "failed"
    assert not (tmp_path / "run" / "masks" / "cut.tif").exists()
    predict(make_request(tmp_path / "clean", {name: images[name] for name in ("one", "two")}))
    for name in ("one", "two"):
        np.testing.assert_array_equal(class_mask(tmp_path / "run", name), class_mask(tmp_path / "clean", name))
