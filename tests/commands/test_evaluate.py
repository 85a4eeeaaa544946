"""Comparing class masks with labels, against scikit-learn."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, jaccard_score

from segbatch.classes import ClassTable, LabelMap
from segbatch.commands.evaluate import evaluate
from segbatch.commands.folder import RunFolder
from segbatch.commands.report import report
from segbatch.errors import InputError
from segbatch.geometry import Window
from segbatch.masks import CogSpec, Pyramid, create_store, write_block, write_cog, write_part

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

MakeRaster = Callable[..., str]

CLASSES = ClassTable.from_items([("water", None), ("forest", None), ("town", None)])


def random_mask(height: int, width: int, seed: int, values: tuple[int, ...] = (0, 1, 2, 255)) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).choice(np.array(values, np.uint8), (height, width))


def write_mask(folder: Path, mask: NDArray[np.uint8]) -> tuple[str, str]:
    """The class mask as a Zarr store and as a COG."""
    height, width = mask.shape
    store = folder / "m.zarr"
    where: dict[str, Any] = {"classes": CLASSES, "crs": None, "transform": Affine.identity(), "pixel_size_um": None}
    create_store(store, width=width, height=height, shard=(height, width), chunk=(height, width), **where)
    write_block(store, Window(0, 0, width, height), mask)
    pyramid = Pyramid(width, height, (height, width), resampling="nearest")
    write_part(folder / "parts", pyramid, Window(0, 0, width, height), mask)
    write_cog(folder / "parts", folder / "m.tif", pyramid, CogSpec.class_mask(CLASSES, None, Affine.identity(), None))
    return str(store), str(folder / "m.tif")


def run(predictions: list[str], labels: list[str], out: Path, **changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"classes": None, "label_map": None, "engine": "inline", "address": "auto"}
    return evaluate(predictions, labels, RunFolder(out), **(settings | changes))


@pytest.fixture
def case(tmp_path: Path, make_raster: MakeRaster) -> tuple[list[str], list[str], NDArray[np.int64]]:
    """A class mask twice, as Zarr and as COG, its label twice, and the confusion matrix of one pair."""
    mask, label = random_mask(130, 170, 1), random_mask(130, 170, 2)
    counted = (mask != 255) & (label != 255)
    expected = confusion_matrix(label[counted], mask[counted], labels=range(3))
    return list(write_mask(tmp_path, mask)), [make_raster(tmp_path / "label.tif", label)] * 2, expected


def test_zarr_and_tiff_give_scikit_learn_s_figures(
    tmp_path: Path, case: tuple[list[str], list[str], NDArray[np.int64]]
) -> None:
    predictions, labels, expected = case
    for number, (prediction, label) in enumerate(zip(predictions, labels, strict=True)):
        out = tmp_path / f"out{number}"
        document = run([prediction], [label], out)
        np.testing.assert_array_equal(document["confusion"], expected)
        assert [item["name"] for item in document["classes"]] == list(CLASSES.names)
        pairs = [(row, col) for row in range(3) for col in range(3) for _ in range(expected[row, col])]
        y_true, y_pred = np.array(pairs).T
        for item, iou in zip(document["classes"], jaccard_score(y_true, y_pred, average=None), strict=True):
            assert item["iou"] == pytest.approx(iou, abs=1e-12)
        assert json.loads((out / "report" / "metrics.json").read_text()) == document
        # What was compared is said, and where.
        (scene,) = document["scenes"]
        assert (document["name"], scene["image"]) == (f"evaluation out{number}", None)
        assert (scene["mask"], scene["label"]) == (prediction, label)
        (row,) = csv.DictReader((out / "report" / "per_scene.csv").open())
        assert (row["mask"], row["label"]) == (prediction, label)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_ray_gives_what_inline_gives(tmp_path: Path, case: tuple[list[str], list[str], NDArray[np.int64]]) -> None:
    predictions, labels, expected = case
    inline = run(predictions, labels, tmp_path / "inline")
    assert run(predictions, labels, tmp_path / "ray", engine="ray") == {**inline, "name": "evaluation ray"}
    np.testing.assert_array_equal(inline["confusion"], 2 * expected)


def test_parts_of_a_large_mask_add_up(
    tmp_path: Path, case: tuple[list[str], list[str], NDArray[np.int64]], monkeypatch: pytest.MonkeyPatch
) -> None:
    predictions, labels, expected = case
    monkeypatch.setattr("segbatch.commands.evaluate._SIDE", 50)
    document = run(predictions[:1], labels[:1], tmp_path / "out")
    np.testing.assert_array_equal(document["confusion"], expected)
    assert len((next((tmp_path / "out" / "ledger").glob("*.jsonl"))).read_text().splitlines()) == 3 * 4


def test_label_values_and_foreign_masks(tmp_path: Path, make_raster: MakeRaster) -> None:
    mask, values = random_mask(60, 70, 3, (0, 1, 2)), random_mask(60, 70, 4, (10, 20, 99))
    prediction, label = make_raster(tmp_path / "m.png", mask), make_raster(tmp_path / "l.tif", values)
    document = run([prediction], [label], tmp_path / "out", classes=CLASSES, label_map=LabelMap(3, ((10, 2), (20, 0))))
    expected = np.zeros((3, 3), int)
    for value, class_id in ((10, 2), (20, 0)):
        expected[class_id] = np.bincount(mask[values == value], minlength=3)
    np.testing.assert_array_equal(document["confusion"], expected)
    assert document["ignored_share"] == pytest.approx((values == 99).mean())


def test_an_evaluation_is_replaced_on_demand_but_never_a_run(
    tmp_path: Path,
    case: tuple[list[str], list[str], NDArray[np.int64]],
    make_raster: MakeRaster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predictions, labels, expected = case
    out, other = tmp_path / "out", make_raster(tmp_path / "other.tif", random_mask(130, 170, 3))
    first = run(predictions, labels, out)
    assert run(predictions, labels, out) == first
    monkeypatch.chdir(tmp_path)
    assert run([Path(path).name for path in predictions[::-1]], labels, out)["confusion"] == first["confusion"]
    for masks, truths in ((predictions[:1], labels[:1]), (predictions, [labels[0], other])):
        with pytest.raises(InputError, match="out holds an evaluation of other class masks or labels. .*--overwrite"):
            run(masks, truths, out)
    assert json.loads((out / "report" / "metrics.json").read_text())["confusion"] == first["confusion"]
    np.testing.assert_array_equal(run(predictions[:1], labels[:1], out, overwrite=True)["confusion"], expected)
    RunFolder(out).update(mapping={"state": "done"})
    for overwrite in (False, True):
        with pytest.raises(InputError, match="holds a run. Choose another folder"):
            run(predictions, labels, out, overwrite=overwrite)


def table(*names: str) -> ClassTable:
    return ClassTable.from_items([(name, None) for name in names])


def test_classes_in_another_order_than_the_mask_s_own_are_refused(
    tmp_path: Path, case: tuple[list[str], list[str], NDArray[np.int64]]
) -> None:
    predictions, labels, expected = case
    for wrong in (table("forest", "water", "town"), table("ocean", "water", "town"), table("forest", "town")):
        for mask, label in zip(predictions, labels, strict=True):
            with pytest.raises(InputError) as caught:
                run([mask], [label], tmp_path / "out", classes=wrong)
            assert str(caught.value) == (
                f"Class 0 of the class mask {mask} is 'water', but the file of --classes calls it {wrong.names[0]!r}: "
                "list the classes in the mask's order, which segbatch info shows."
            )
    assert not (tmp_path / "out").exists()
    # As renamed or translated ones, and where others follow.
    for names in (("Wasser", "Wald", "Stadt"), ("water", "wood", "town", "snow"), ("lake", "forest", "x")):
        found = np.array(run([predictions[0]], [labels[0]], tmp_path / "out", classes=table(*names))["confusion"])
        np.testing.assert_array_equal(found[:3, :3], expected)


def test_masks_of_several_orders_are_refused(tmp_path: Path, make_raster: MakeRaster) -> None:
    mask, label = random_mask(40, 50, 1, (0, 1, 2)), make_raster(tmp_path / "l.tif", random_mask(40, 50, 2, (0, 1, 2)))
    spec = CogSpec.class_mask(table("forest", "water", "town"), None, Affine.identity(), None)
    (tmp_path / "other").mkdir()
    first, second = write_mask(tmp_path, mask)[1], str(tmp_path / "other" / "m.tif")
    pyramid = Pyramid(50, 40, (40, 50), resampling="nearest")
    write_part(tmp_path / "other" / "parts", pyramid, Window(0, 0, 50, 40), mask)
    write_cog(tmp_path / "other" / "parts", second, pyramid, spec)
    with pytest.raises(InputError, match=f"{second} is 'forest', but {first} calls it 'water'"):
        run([first, second], [label, label], tmp_path / "out")


def test_masks_of_values_that_are_no_classes_are_refused(tmp_path: Path, make_raster: MakeRaster) -> None:
    label = make_raster(tmp_path / "l.tif", random_mask(40, 50, 2, (0, 1, 2)))
    mask = make_raster(tmp_path / "m.tif", random_mask(40, 50, 1, (1, 2, 3, 4, 255)))
    with pytest.raises(InputError) as caught:
        run([mask], [label], tmp_path / "out", classes=CLASSES)
    assert str(caught.value) == (
        f"Class mask {mask} has values without a class: 3, 4. Classes are 0 to 2, nodata is 255: list a class for each "
        "value, from 0 on, with --classes FILE."
    )


def test_where_label_values_go_is_said_once(
    tmp_path: Path, case: tuple[list[str], list[str], NDArray[np.int64]], make_raster: MakeRaster
) -> None:
    masks, _, _ = case
    labels = [make_raster(tmp_path / f"l{n}.tif", random_mask(130, 170, n, (1, 2, 5, 6))) for n in range(2)]
    for classes, where in ((None, "a YAML file with the classes: --classes FILE"), (CLASSES, "the file of --classes")):
        with pytest.raises(InputError) as caught:
            run(masks, labels, tmp_path / "out", classes=classes)
        first, second = str(caught.value).splitlines()
        assert first.startswith(f"Label {labels[0]} has values without a class: 5, 6.")
        assert first.endswith("(The same goes for " + Path(masks[1]).parent.name + "_m_2.)")
        assert second == f"label_values go into {where}."


def test_a_report_of_masks_that_have_gone_is_as_good(
    tmp_path: Path, case: tuple[list[str], list[str], NDArray[np.int64]]
) -> None:
    predictions, labels, _ = case
    document = run(predictions[1:], labels[1:], tmp_path / "out")
    Path(predictions[1]).unlink()
    assert report(RunFolder(tmp_path / "out")) == document


def test_bad_input_is_refused(
    tmp_path: Path, make_raster: MakeRaster, case: tuple[list[str], list[str], NDArray[np.int64]]
) -> None:
    (store, cog), (label, _), _ = case
    plain = make_raster(tmp_path / "plain.tif", random_mask(130, 170, 1))
    colour = make_raster(tmp_path / "colour.tif", np.zeros((3, 130, 170), np.uint8))
    small = make_raster(tmp_path / "small.tif", np.zeros((13, 17), np.uint8))
    wrong: list[tuple[list[str], list[str], dict[str, Any], str]] = [
        ([store, cog], [label], {}, "2 class masks but 1 labels?: give as many"),
        ([plain], [label], {}, "plain.tif does not say what its classes are: .* --classes"),
        ([colour], [label], {"classes": CLASSES}, "has 3 bands; a class mask has one"),
        ([store], [small], {}, "is 17 x 13 pixels, but its scene .* is 170 x 130"),
        ([str(tmp_path / "nowhere.tif")], [label], {}, "nowhere.tif does not exist"),
        ([str(tmp_path)], [label], {}, "is not a class mask in Zarr format"),
        ([store], [str(tmp_path / "nowhere.tif")], {}, "nowhere.tif does not exist"),
    ]
    for predictions, labels, changes, message in wrong:
        with pytest.raises(InputError, match=message) as caught:
            run(predictions, labels, tmp_path / "out", **changes)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_damaged_mask_fails_alone(tmp_path: Path, case: tuple[list[str], list[str], NDArray[np.int64]]) -> None:
    predictions, labels, expected = case
    shard = Path(predictions[0]) / "class_mask" / "c" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-9] + b"destroyed")
    document = run(predictions, labels, tmp_path / "out")
    assert len(document["failed"]) == 1
    assert "damaged" in document["failed"][0]["error"]
    assert [scene["mask"] for scene in document["scenes"]] == predictions
    np.testing.assert_array_equal(document["confusion"], expected)
