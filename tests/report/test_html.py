"""The page, read by an HTML parser."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from segbatch.report import metrics_document
from segbatch.report.html import MOST_SCENES, Panel, Picture, area, cell, percent, render_html
from segbatch.report.summary import Schedule

NASTY = '<script>alert("x")</script>'
VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Tables by id as lists of rows of texts, all tags with their attributes, and the visible text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.tables, self.open, self.text = [], {}, [], ""
        self._table = None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self._table = self.tables.setdefault(dict(attrs)["id"], [])
        elif tag == "tr":
            self._table.append([])
        elif tag in ("td", "th"):
            self._table[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text += data
        if self.open and {"td", "th"} & set(self.open):
            self._table[-1][-1] += data.strip()


@pytest.fixture
def run(make_scene, make_failed_scene, make_run, random_ids):
    scenes = [
        make_scene(random_ids(0, [0, 1]), random_ids(1, [0, 1]), scene_id="one", group="north", pixel_area_m2=1.0),
        make_scene(random_ids(2, [0, 1]), scene_id="two", pixel_area_m2=1.0),
        make_failed_scene("three", "its tiles are damaged"),
    ]
    rows = [{"epoch": e, "loss": 1 / e, "miou": 0.5, "iou": [0.4, 0.6, None]} for e in (1, 2, 3)]
    return make_run(scenes, facts=(("Bundle", "unet-1f2e"),), training=rows)


def render(run, panels=()):
    return render_html(metrics_document(run), run, panels)


def test_page_is_well_formed_and_has_every_part(run):
    page = Page(render(run))
    assert page.open == []
    assert set(page.tables) == {"classes", "confusion", "groups", "scenes", "files", "epochs"}
    for text in (
        "trial",
        "unet-1f2e",
        "1 of 3 scenes failed",
        "three: its tiles are damaged",
        "Training loss",
        "pooled",
    ):
        assert text in page.text
    assert sum(tag == "svg" for tag, _ in page.tags) == 2


def test_tables_show_the_document(run):
    document, page = metrics_document(run), Page(render(run))
    _, *rows = page.tables["classes"]
    assert [row[0] for row in rows] == ["water", "forest", "road"]
    assert [row[1] for row in rows] == [
        f"{c['iou']:.3f}" if c["iou"] is not None else "\u2013" for c in document["classes"]
    ]
    assert rows[0][5] == f"{document['classes'][0]['support']:,}"
    header, *counts = page.tables["confusion"]
    assert header[1:-1] == ["water", "forest", "road"]
    share = document["confusion"][0][1] / document["classes"][0]["support"]
    assert counts[0][2] == f"{share * 100:.0f}"
    assert counts[2][1:] == ["·", "·", "·", "0"]
    assert [row[0] for row in page.tables["groups"][1:]] == ["north", "(no group)"]
    scenes = page.tables["scenes"][1:]
    assert [row[0] for row in scenes] == ["one", "two", "three"]
    assert scenes[0][3] == f"{document['scenes'][0]['miou']:.3f}"
    assert scenes[1][3] == "no label"
    assert scenes[2][3] == "failedits tiles are damaged"
    assert f"{document['miou']:.3f}" in page.text


def test_files_that_were_compared_are_named(make_scene, make_run, random_ids):
    ids = random_ids(0, [0, 1])
    label = "https://me:secret@host/l.tif?sig=secret"
    scene = replace(make_scene(ids, ids, label_path=label), image=None, shown_mask="/masks/m.tif")
    html = render(make_run([scene]))
    assert Page(html).tables["files"] == [
        ["Scene", "Label", "Class mask"],
        ["scene", "https://***@host/l.tif?***", "/masks/m.tif"],
    ]
    assert "secret" not in html
    assert Page(render(make_run([make_scene(ids)]))).tables["files"][0] == ["Scene", "Image"]


def test_scenes_that_are_not_finished_have_not_failed(make_unfinished_scene, make_run):
    page = Page(render(make_run([make_unfinished_scene("one", "5 of 8 blocks still to do")])))
    text = " ".join(page.text.split())
    assert "1 of 1 scene not finished: the run was stopped." in text
    assert "0 scenes mapped, 0 with a label, 0 pixels, 1 not finished" in text
    assert set(page.tables) == {"scenes", "files"}  # no table of dashes
    assert page.tables["scenes"][1][2] == "not finished5 of 8 blocks still to do"
    assert "failed" not in text.split("How to read")[0]
    assert "label, so" not in text


def test_counts_are_in_the_titles_of_matrix_cells(run):
    count = metrics_document(run)["confusion"][1][0]
    titles = [attrs.get("title") for tag, attrs in Page(render(run)).tags if tag == "td"]
    assert f"label forest, predicted water: {count:,} pixels" in titles


def test_names_are_escaped_everywhere(make_scene, make_failed_scene, make_run, random_ids):
    label = random_ids(1, [0, 1, 2])
    scenes = [
        make_scene(random_ids(0, [0, 1, 2]), label, scene_id=NASTY, group=NASTY, image=NASTY),
        make_failed_scene('x" onload="alert(1)', NASTY),
    ]
    rows = [{"epoch": 1, "loss": 1.0, "miou": 0.5, "iou": [0.4, 0.6, 0.5]}]
    run = make_run(scenes, (NASTY, '"><img src=x>', "a & b"), name=NASTY, facts=((NASTY, NASTY),), training=rows)
    html = render(
        run, [Panel(NASTY, (Picture("image", "data:,", NASTY, 4, 4), Picture("label", "data:,", None, 4, 4)))]
    )
    page = Page(html)
    assert page.open == []
    assert "<script" not in html
    assert not any("onload" in attrs for _, attrs in page.tags)
    assert [attrs["src"] for tag, attrs in page.tags if tag == "img"] == ["data:,"]
    assert NASTY in page.text
    assert "a & b" in page.text


def test_of_a_training_alone_there_is_the_training_alone(make_run):
    rows = [
        {
            "epoch": epoch, "loss": 1 / epoch, "miou": miou, "pixel_accuracy": 0.7, "iou": [0.1, None, 0.5],
            "learning_rate": 9.8e-4, "tiles_per_second": 10.0 * epoch, "waited": 0.1 * epoch,
            "train_seconds": 100.0, "validate_seconds": 20.0,
        }
        for epoch, miou in ((1, 0.25), (2, 0.75), (3, 0.75))
    ]  # fmt: skip
    run = make_run((), training=rows)
    samples = [Panel(NASTY, (Picture("image", "data:,", None, 4, 4), Picture("label", "", "it is gone", 0, 0)))]
    html = render_html(metrics_document(run), run, (), samples)
    page = Page(html)
    assert page.open == []
    assert "<script" not in html
    assert set(page.tables) == {"epochs"}
    header, *figures = page.tables["epochs"]
    assert header == [
        "Epoch", "Loss", "Mean IoU", "Pixel accuracy", "water", "forest", "road", "Learning rate", "Tiles/s", "Waiting",
    ]  # fmt: skip
    assert figures[1] == ["2 (kept)", "0.500", "0.750", "0.700", "0.100", "\u2013", "0.500", "0.00098", "20", "20.0 %"]
    for text in ("3 epochs of training; nothing is mapped yet", "2 of 3", "20.0 tiles a second", "20.0% of the time",
                 "5 min and 60 s", NASTY, "cannot be shown: it is gone"):  # fmt: skip
        assert text in page.text
    assert "No scene has a label" not in page.text
    assert not re.search(r"https?://", html)


def test_of_many_epochs_the_last_are_in_the_table(make_run):
    rows = [{"epoch": epoch, "loss": float("nan"), "miou": None, "iou": None} for epoch in range(1, 301)]
    run = make_run((), training=rows)
    page = Page(render_html(metrics_document(run), run, ()))
    assert [row[0] for row in page.tables["epochs"]][1:3] == ["101", "102"]
    assert "The last 200 of 300" in page.text


def test_page_refers_to_nothing_outside(run):
    html = render(run, [Panel("one", (Picture("image", "data:image/png;base64,AA==", None, 4, 4),))])
    assert not re.search(r"https?://|//[a-z]", html)
    assert not re.search(r"@import|url\(", html)
    page = Page(html)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    for _, attrs in page.tags:
        assert not {"href", "action", "srcset"} & set(attrs)
        assert attrs.get("src", "data:").startswith("data:")


def test_page_of_a_run_without_labels(make_scene, make_run):
    mask = np.zeros((10, 10), np.uint8)
    mask[:4] = 1
    page = Page(render(make_run([make_scene(mask, pixel_size_um=100.0)])))
    assert set(page.tables) == {"classes", "scenes", "files"}
    assert page.tables["classes"][0] == ["Class", "Share of mapped pixels", "Predicted pixels", "Mapped mm²"]
    assert page.tables["classes"][1] == ["water", "60.0 %", "60", "0.600"]
    assert "No scene has a label" in page.text
    assert "IoU" not in page.text.split("How to read")[0]


def test_long_runs_are_cut_and_say_so(make_scene, make_failed_scene, make_run):
    mask = np.zeros((4, 4), np.uint8)
    scenes = [make_scene(mask, mask, scene_id=f"s{i}", group=f"g{i}") for i in range(MOST_SCENES + 50)]
    failed = [make_failed_scene(f"f{i}", "gone", group="g0") for i in range(80)]
    page = Page(render(make_run(scenes + failed), [Panel("s0", ())]))
    assert len(page.tables["scenes"]) == 1 + MOST_SCENES
    assert len(page.tables["groups"]) == 1 + 200
    text = " ".join(page.text.split())
    assert "The first 200 of 330 scenes; per_scene.csv has them all." in text
    assert "The first 200 of 250 groups; metrics.json has them all." in text
    assert "The first 1 of 250 mapped scenes." in text
    assert "80 of 330 scenes failed" in text
    assert "30 more are listed in metrics.json." in text


def test_matrix_of_too_many_classes_is_left_to_the_csv(make_scene, make_run, random_ids):
    for count, shown in ((40, True), (41, False)):
        scene = make_scene(random_ids(0, range(count)), random_ids(1, range(count)), num_classes=count)
        page = Page(render(make_run([scene], [f"c{i}" for i in range(count)])))
        assert ("confusion" in page.tables) == shown
        assert ("confusion.csv has the matrix" in page.text) != shown


@pytest.mark.parametrize(
    ("show", "value", "text"),
    [
        (percent, None, "\u2013"),
        (percent, 0.0, "0 %"),
        (percent, 0.0004, "< 0.1 %"),
        (percent, 0.0005, "0.1 %"),
        (percent, 1.0, "100.0 %"),
        (area, 0.0, "0.000"),
        (area, 0.0001, "< 0.001"),
        (area, 12.3456, "12.35"),
        (area, 1_234_567.8, "1,234,568"),
        (cell, 0.0, "·"),
        (cell, 0.004, "<1"),
        (cell, 0.006, "1"),
        (cell, 1.0, "100"),
    ],
)
def test_numbers_are_rounded_for_people(show, value, text):
    assert show(value) == text


def test_a_schedule_shows_its_latest_runs_and_first_what_is_not_mapped(run):
    counts = dict.fromkeys(("new", "changed", "skipped", "vanished", "failed"), 0)
    runs = tuple(
        {"number": n, "started": "2026-11-24T02:00:00Z", "ended": None, "exit_code": None, **counts, "new": n}
        for n in range(1, 31)
    )
    dates = {"modified": None, "mapped_at": None, "run": None, "km2": None, "image": NASTY}
    scenes = (
        {"scene": "one", "status": "mapped", "note": None, **dates, "run": 3, "km2": 7.8},
        {"scene": NASTY, "status": "failed", "note": NASTY, **dates},
    )
    page = Page(render(replace(run, schedule=Schedule(scenes, runs))))
    assert [row[0] for row in page.tables["runs"][1:]] == [str(n) for n in range(30, 10, -1)]
    assert page.tables["runs"][1][2] == "did not end"
    assert [row[0] for row in page.tables["index"][1:]] == [NASTY, "one"]
    assert page.tables["index"][1][1] == f"failed{NASTY}"
    assert page.tables["index"][2][4:] == ["3", "7.800"]
    assert "The last 20 of 30 runs" in page.text
    assert "runs" not in Page(render(run)).tables
