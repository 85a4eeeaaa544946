"""The metrics document against scikit-learn on the same pixels."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics as oracle

from segbatch.classes import IGNORE_INDEX, NODATA
from segbatch.report import SceneResult, metrics_document

NAMES = ("water", "forest", "grass", "rare", "absent", "road")
ABSENT, ONLY_PREDICTED = 4, 3


@pytest.mark.parametrize("seed", range(4))
def test_figures_are_scikit_learns(make_scene, make_run, random_ids, seed):
    label, mask = random_ids(seed, [0, 1, 1, 2, 5]), random_ids(seed + 100, [0, 1, 2, 2, 3, 5])
    document = metrics_document(make_run([make_scene(mask, label, num_classes=6)], NAMES))

    truth, found, ids = label.ravel(), mask.ravel(), range(6)
    iou = oracle.jaccard_score(truth, found, labels=ids, average=None, zero_division=0)
    dice = oracle.f1_score(truth, found, labels=ids, average=None, zero_division=0)
    precision = oracle.precision_score(truth, found, labels=ids, average=None, zero_division=0)
    recall = oracle.recall_score(truth, found, labels=ids, average=None, zero_division=0)
    present, labelled = [0, 1, 2, ONLY_PREDICTED, 5], [0, 1, 2, 5]
    for index in present:
        item = document["classes"][index]
        assert item["iou"] == pytest.approx(iou[index])
        assert item["dice"] == pytest.approx(dice[index])
        assert item["precision"] == pytest.approx(precision[index])
        assert item["support"] == (truth == index).sum()
        assert item["predicted"] == (found == index).sum()
    assert [document["classes"][index]["recall"] for index in labelled] == pytest.approx(recall[labelled])
    assert document["miou"] == pytest.approx(iou[present].mean())
    assert document["mdice"] == pytest.approx(dice[present].mean())
    assert document["fwiou"] == pytest.approx(
        oracle.jaccard_score(truth, found, average="weighted", labels=ids, zero_division=0)
    )
    assert document["pixel_accuracy"] == pytest.approx(oracle.accuracy_score(truth, found))
    assert document["mean_accuracy"] == pytest.approx(recall[labelled].mean())
    assert document["confusion"] == oracle.confusion_matrix(truth, found, labels=ids).tolist()


def test_absent_class_is_null_and_only_predicted_class_is_zero(make_scene, make_run, random_ids):
    scene = make_scene(random_ids(1, [0, 1, 2, 3, 5]), random_ids(0, [0, 1, 2, 5]), num_classes=6)
    classes = metrics_document(make_run([scene], NAMES))["classes"]
    absent, only_predicted = classes[ABSENT], classes[ONLY_PREDICTED]
    assert [absent[field] for field in ("iou", "dice", "precision", "recall")] == [None] * 4
    assert (only_predicted["iou"], only_predicted["dice"], only_predicted["precision"]) == (0, 0, 0)
    assert only_predicted["recall"] is None


def test_scenes_are_pooled_before_figures_are_taken(make_scene, make_run, random_ids):
    labels = [random_ids(0, [0, 1], (100, 100)), random_ids(1, [0, 1, 2], (10, 10))]
    masks = [labels[0].copy(), random_ids(3, [0, 1, 2], (10, 10))]
    masks[0][:30] = 1
    document = metrics_document(make_run([make_scene(m, t) for m, t in zip(masks, labels, strict=True)]))

    truth, found = (np.concatenate([array.ravel() for array in arrays]) for arrays in (labels, masks))
    pooled = oracle.jaccard_score(truth, found, average="macro")
    own = [oracle.jaccard_score(t.ravel(), m.ravel(), average="macro") for t, m in zip(labels, masks, strict=True)]
    assert document["miou"] == pytest.approx(pooled)
    assert [scene["miou"] for scene in document["scenes"]] == pytest.approx(own)
    assert document["scene_mean"] == pytest.approx(np.mean(own))
    assert document["scene_mean"] != pytest.approx(pooled, abs=0.01)


def test_groups_pool_their_own_scenes(make_scene, make_run, random_ids):
    names = ["rat2", None, "rat1", "rat2"]
    arrays = [(random_ids(i, [0, 1, 2]), random_ids(i + 50, [0, 1, 2])) for i in range(4)]
    scenes = [
        make_scene(m, t, group=g, scene_id=f"s{i}") for i, ((m, t), g) in enumerate(zip(arrays, names, strict=True))
    ]
    groups = metrics_document(make_run(scenes))["groups"]
    assert [row["group"] for row in groups] == ["rat2", "rat1", None]
    assert [row["scenes"] for row in groups] == [2, 1, 1]
    truth, found = (np.concatenate([arrays[0][i].ravel(), arrays[3][i].ravel()]) for i in (1, 0))
    assert groups[0]["iou"] == pytest.approx(oracle.jaccard_score(truth, found, average=None))
    assert groups[0]["pixel_accuracy"] == pytest.approx(oracle.accuracy_score(truth, found))
    assert sum(row["counted_pixels"] for row in groups) == sum(mask.size for mask, _ in arrays)


def test_run_without_groups_has_no_group_rows(make_scene, make_run, random_ids):
    assert metrics_document(make_run([make_scene(random_ids(0, [0, 1]))]))["groups"] == []


def test_failed_scenes_count_nowhere_and_are_named(make_scene, make_failed_scene, make_run, random_ids):
    scene = make_scene(random_ids(0, [0, 1, 2]), random_ids(1, [0, 1, 2]), group="a", pixel_area_m2=4.0)
    alone = metrics_document(make_run([scene]))
    both = metrics_document(make_run([make_failed_scene("broken", "it is damaged", group="a"), scene]))
    changed = ("scenes", "groups", "failed")
    assert {k: v for k, v in both.items() if k not in changed} == {k: v for k, v in alone.items() if k not in changed}
    assert both["failed"] == [{"id": "broken", "image": "absent/broken.tif", "error": "it is damaged"}]
    row = both["scenes"][0]
    assert (row["status"], row["error"], row["miou"], row["class_pixels"]) == ("failed", "it is damaged", None, None)
    assert both["groups"][0]["miou"] == alone["groups"][0]["miou"]
    assert both["groups"][0]["failed"] == 1


def test_unfinished_scenes_count_nowhere_and_are_named(make_scene, make_unfinished_scene, make_run, random_ids):
    scene = make_scene(random_ids(0, [0, 1, 2]), random_ids(1, [0, 1, 2]), pixel_area_m2=4.0)
    alone = metrics_document(make_run([scene]))
    both = metrics_document(make_run([make_unfinished_scene("rest", "3 of 4 blocks still to do"), scene]))
    changed = ("scenes", "unfinished")
    assert {k: v for k, v in both.items() if k not in changed} == {k: v for k, v in alone.items() if k not in changed}
    assert both["unfinished"] == [{"id": "rest", "image": "absent/rest.tif", "left": "3 of 4 blocks still to do"}]
    row = both["scenes"][0]
    assert (row["status"], row["error"], row["miou"]) == ("unfinished", "3 of 4 blocks still to do", None)


def test_files_are_named_without_secrets(make_scene, make_run, random_ids):
    ids, secret = random_ids(0, [0, 1]), "https://me:pass@host/{}.tif?sig=x"
    scene = make_scene(ids, ids, image=secret.format("i"), label_path=secret.format("l"))
    (row,) = metrics_document(make_run([replace(scene, shown_mask=secret.format("m"))]))["scenes"]
    assert [row[name] for name in ("image", "label", "mask")] == [f"https://***@host/{n}.tif?***" for n in "ilm"]


def test_run_without_labels_has_shares_and_areas_only(make_scene, make_run):
    mask = np.array([[0, 0, 0, 1], [1, 2, NODATA, NODATA]], np.uint8)
    document = metrics_document(make_run([make_scene(mask, pixel_area_m2=500_000.0)]))
    for field in ("miou", "fwiou", "mdice", "pixel_accuracy", "mean_accuracy", "scene_mean", "confusion"):
        assert document[field] is None
    assert document["ignored_share"] is None
    assert document["nodata_share"] == 0.25
    assert [item["share"] for item in document["classes"]] == pytest.approx([3 / 6, 2 / 6, 1 / 6])
    assert [item["area_km2"] for item in document["classes"]] == [1.5, 1.0, 0.5]
    assert [item["support"] for item in document["classes"]] == [None] * 3
    assert document["scenes"][0]["status"] == "unlabelled"


def test_shares_of_pixels_that_are_not_counted(make_scene, make_run):
    mask = np.zeros((10, 10), np.uint8)
    mask[:2] = NODATA
    label = np.zeros((10, 10), np.uint8)
    label[1:6] = IGNORE_INDEX  # one row of it has no data
    document = metrics_document(make_run([make_scene(mask, label), make_scene(mask[2:], scene_id="plain")]))
    assert document["pixels"] == 180
    assert document["counted_pixels"] == 40
    assert document["nodata_share"] == 20 / 180
    assert document["ignored_share"] == 40 / 100
    assert [scene["ignored_share"] for scene in document["scenes"]] == [0.4, None]


def test_area_of_a_run_is_unknown_when_one_scene_has_none(make_scene, make_run):
    mask = np.zeros((10, 10), np.uint8)
    with_map, scan = make_scene(mask, pixel_area_m2=1e4), make_scene(mask, pixel_size_um=100.0)
    document = metrics_document(make_run([with_map, scan]))
    assert document["classes"][0]["area_km2"] is None
    assert document["classes"][0]["area_mm2"] is None
    assert document["scenes"][0]["area_km2"] == [1.0, 0.0, 0.0]
    assert document["scenes"][1]["area_km2"] is None
    assert document["scenes"][1]["area_mm2"] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("label_ids", [[0, 1, 2], [IGNORE_INDEX], None])
def test_document_is_strict_json(make_scene, make_failed_scene, make_run, random_ids, label_ids):
    label = None if label_ids is None else random_ids(1, label_ids)
    run = make_run([make_scene(random_ids(0, [0, 1]), label), make_failed_scene("x", "gone")])
    document = metrics_document(run)
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_run_in_which_all_failed_has_no_figures(make_failed_scene, make_run):
    document = metrics_document(make_run([make_failed_scene("x", "gone")]))
    assert (document["miou"], document["pixels"], document["nodata_share"]) == (None, 0, None)
    assert [item["share"] for item in document["classes"]] == [None] * 3


def test_counts_that_do_not_add_up_are_refused(make_scene):
    good = make_scene(np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8))
    fields = {name: getattr(good, name) for name in SceneResult.__slots__}
    with pytest.raises(ValueError, match="15 class pixels and 0 nodata pixels are not the 16 pixels of 4 x 4"):
        SceneResult(**{**fields, "class_pixels": (15, 0, 0)})
    with pytest.raises(ValueError, match="16 pixels in the confusion matrix and 1 ignored"):
        SceneResult(**{**fields, "ignored_pixels": 1})


def test_counts_of_another_class_table_are_refused(make_scene, make_run):
    with pytest.raises(ValueError, match=r"3 class counts .* for 6 classes"):
        make_run([make_scene(np.zeros((4, 4), np.uint8))], NAMES)
