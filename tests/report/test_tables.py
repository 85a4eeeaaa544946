"""CSV files parsed back, and the terminal table as 80 columns show it."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from segbatch.classes import IGNORE_INDEX
from segbatch.report import console_summary, metrics_document
from segbatch.report.tables import confusion_csv, per_class_csv, per_scene_csv

AWKWARD = ('water, "deep"', "line\nbreak", "[red]road[/red]")


def parse(text):
    return list(csv.reader(io.StringIO(text, newline="")))


def cell(value):
    return "" if value is None else str(value)


@pytest.fixture
def document(make_scene, make_failed_scene, make_run, random_ids):
    scenes = [
        make_scene(random_ids(0, [0, 1]), random_ids(1, [0, 1]), group="g, 1", pixel_area_m2=1.0, scene_id="one"),
        make_failed_scene("two", "it is damaged,\nbadly"),
        make_scene(random_ids(2, [0, 1, 2]), scene_id="three"),
    ]
    return metrics_document(make_run(scenes, AWKWARD))


def test_per_class_csv_holds_every_figure(document):
    header, *rows = parse(per_class_csv(document))
    assert [row[0] for row in rows] == list(AWKWARD)
    for row, item in zip(rows, document["classes"], strict=True):
        assert row[1:] == [cell(item[field]) for field in header[1:]]
    assert float(rows[0][header.index("iou")]) == document["classes"][0]["iou"]
    assert rows[2][header.index("iou")] == ""


def test_per_scene_csv_holds_every_scene(document):
    header, *rows = parse(per_scene_csv(document))
    assert [row[header.index("id")] for row in rows] == ["one", "two", "three"]
    assert [row[header.index("status")] for row in rows] == ["done", "failed", "unlabelled"]
    assert rows[1][header.index("error")] == "it is damaged,\nbadly"
    for row, scene in zip(rows, document["scenes"], strict=True):
        assert len(row) == len(header)
        assert row[header.index("miou")] == cell(scene["miou"])
        for index, name in enumerate(AWKWARD):
            assert row[header.index(f"iou_{name}")] == cell(scene["iou"][index])
            pixels = scene["class_pixels"]
            assert row[header.index(f"pixels_{name}")] == cell(pixels[index] if pixels else None)


def test_confusion_csv_holds_the_counts(document):
    header, *rows = parse(confusion_csv(document))
    assert header[1:] == [row[0] for row in rows] == list(AWKWARD)
    assert [[int(value) for value in row[1:]] for row in rows] == document["confusion"]


def test_confusion_csv_without_labels_has_no_rows(make_scene, make_run, random_ids):
    document = metrics_document(make_run([make_scene(random_ids(0, [0, 1]))]))
    assert parse(confusion_csv(document)) == [["label/prediction", "water", "forest", "road"]]


def printed(document, width=80):
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(console_summary(document))
    return console.file.getvalue()


def test_80_columns_cut_no_number(make_scene, make_run, random_ids):
    names = [f"class {i} with a name that is far too long for any terminal of eighty columns" for i in range(20)]
    scene = make_scene(random_ids(0, range(20)), random_ids(1, range(19)), num_classes=20)
    document = metrics_document(make_run([scene], names))
    text = printed(document)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in text
    total = document["counted_pixels"]
    for item in document["classes"]:
        figures = ["-" if item[f] is None else f"{item[f]:.3f}" for f in ("iou", "dice", "precision", "recall")]
        expected = [*figures, f"{item['support'] / total:.1%}"]
        assert any(line.split()[-5:] == expected for line in lines), (item["name"], expected)
    assert f"mIoU {document['miou']:.3f}" in text


def test_class_names_are_no_markup(document):
    assert "[red]road[/red]" in printed(document)


def test_failed_scenes_are_named(document):
    text = printed(document)
    assert "1 of 3 scenes failed" in text
    assert "two: it is damaged" in text


def test_long_list_of_failed_scenes_says_how_many_more(make_failed_scene, make_run):
    text = printed(metrics_document(make_run([make_failed_scene(f"s{i:03}", "gone") for i in range(500)])))
    assert "500 of 500 scenes failed" in text
    assert "s000: gone" in text
    assert "480 more, listed in metrics.json" in text
    assert len(text.splitlines()) < 40


def test_of_a_run_that_was_stopped_no_table_of_nothing_is_shown(make_unfinished_scene, make_failed_scene, make_run):
    scenes = [
        make_unfinished_scene("a", "5 of 8 blocks still to do"),
        make_unfinished_scene("b", "m.tif was not written"),
    ]
    assert printed(metrics_document(make_run(scenes))).split("\n")[1:-1] == [
        "2 of 2 scenes not finished. Run the same command again to go on.",
        "  a: 5 of 8 blocks still to do",
        "  b: m.tif was not written",
    ]
    both = printed(metrics_document(make_run([*scenes, make_failed_scene("c", "gone")])))
    assert "1 of 3 scenes failed:\n  c: gone\n" in both
    assert "2 of 3 scenes not finished" in both


def test_why_there_are_no_figures(make_scene, make_failed_scene, make_run, random_ids):
    lost = replace(make_failed_scene("lost", "damaged"), label="l.tif")
    assert printed(metrics_document(make_run([lost]))) == "\n1 of 1 scene failed:\n  lost: damaged\n"
    mapped = make_scene(random_ids(0, [0, 1]))
    assert "No scene has a label" in printed(metrics_document(make_run([mapped])))
    assert "No scene with a label could be evaluated." in printed(metrics_document(make_run([mapped, lost])))


@pytest.mark.parametrize(("rows", "is_told"), [(4, True), (5, False), (10, False)])
def test_a_label_of_the_smaller_part_of_a_scene_is_told(make_scene, make_run, rows, is_told):
    label = np.full((10, 10), IGNORE_INDEX, np.uint8)
    label[:rows] = 1
    text = printed(metrics_document(make_run([make_scene(np.ones((10, 10), np.uint8), label)])))
    assert ("60.0% of the pixels have no label and are not counted." in text) == is_told
    assert ("have no label" in text) == is_told


def test_run_without_labels_shows_shares_and_areas(make_scene, make_run):
    mask = np.zeros((100, 100), np.uint8)
    mask[:25] = 1
    mask[99, 99] = 2
    text = printed(metrics_document(make_run([make_scene(mask, pixel_area_m2=1e6)])))
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert rows["Class"] == ["Predicted", "km2"]
    assert rows["water"] == ["75.0%", "7,499"]
    assert rows["forest"] == ["25.0%", "2,500"]
    assert rows["road"] == ["<0.1%", "1"]
    assert "IoU" not in text
