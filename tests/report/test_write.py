"""The report's folder: its files, their agreement, and the page in a real browser."""

import base64
import csv
import io
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segbatch.classes import NODATA, LabelMap
from segbatch.report import Sample, write_report, write_training_report
from segbatch.report.html import MOST_PANELS

LABELS = LabelMap(3)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@pytest.fixture
def run(tmp_path, make_scene, make_failed_scene, make_run, make_raster, random_ids):
    """Two labelled scenes and one that failed."""
    scenes = []
    for index in range(2):
        label = random_ids(index, [0, 1, 2]).repeat(4, axis=0).repeat(4, axis=1)
        mask = random_ids(index + 10, [0, 1, 2, NODATA]).repeat(4, axis=0).repeat(4, axis=1)
        folder = tmp_path / str(index)
        scenes.append(
            make_scene(
                mask,
                label,
                scene_id=f"scene{index}",
                image=make_raster(folder / "image.tif", (label * 100)[None].repeat(3, axis=0)),
                label_path=make_raster(folder / "label.tif", label),
                mask_path=make_raster(folder / "mask.tif", mask, nodata=NODATA),
            )
        )
    return make_run([*scenes, make_failed_scene("lost", "it is damaged")])


def test_report_has_its_files_and_they_agree(run, tmp_path):
    out = tmp_path / "run" / "report"
    document = write_report(run, out, label_map=LABELS)
    assert sorted(path.name for path in out.iterdir()) == [
        "confusion.csv",
        "metrics.json",
        "per_class.csv",
        "per_scene.csv",
        "report.html",
        "scene0.png",
        "scene1.png",
    ]
    assert json.loads((out / "metrics.json").read_text()) == document
    rows = list(csv.DictReader(io.StringIO((out / "per_class.csv").read_text())))
    assert [float(row["iou"]) for row in rows] == [item["iou"] for item in document["classes"]]
    assert "cannot be shown" not in (out / "report.html").read_text()
    with Image.open(out / "scene0.png") as picture:
        assert (picture.width, picture.height) == (3 * 200 + 2 * 8, 160)


def test_same_run_gives_same_bytes(run, tmp_path):
    for name in ("a", "b"):
        write_report(run, tmp_path / name, label_map=LABELS)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_report_is_written_over_an_older_one(run, tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "metrics.json").write_text("{}")
    document = write_report(run, tmp_path / "report", label_map=LABELS)
    assert json.loads((tmp_path / "report" / "metrics.json").read_text())["miou"] == document["miou"]


def test_only_the_first_scenes_have_pictures(tmp_path, make_scene, make_failed_scene, make_run):
    mask = np.zeros((4, 4), np.uint8)
    scenes = [make_failed_scene("f", "gone"), *(make_scene(mask, scene_id=f"s{i:03}") for i in range(MOST_PANELS + 5))]
    write_report(make_run(scenes), tmp_path, label_map=LABELS)
    assert sorted(path.stem for path in tmp_path.glob("*.png")) == [f"s{i:03}" for i in range(MOST_PANELS)]
    assert f"The first {MOST_PANELS} of {MOST_PANELS + 5} mapped scenes." in (tmp_path / "report.html").read_text()


def test_missing_images_cost_no_figures(run, tmp_path):
    figures = write_report(run, tmp_path / "before", label_map=LABELS)
    for scene in run.scenes[:2]:
        Path(scene.image).unlink()
    assert write_report(run, tmp_path / "after", label_map=LABELS) == figures
    assert f"{run.scenes[0].image} does not exist" in (tmp_path / "after" / "report.html").read_text()


def browse(page, profile, *options):
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        "--force-device-scale-factor=1",
        f"--user-data-dir={profile}",
        *options,
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
def test_page_opens_in_a_browser(run, tmp_path):
    document = write_report(run, tmp_path / "report", label_map=LABELS)
    page = tmp_path / "report" / "report.html"
    dom = browse(page, tmp_path / "profile", "--dump-dom")
    classes = dom.split('id="classes"')[1].split("</table>")[0]
    assert classes.count("<tr>") == 1 + 3
    for item in document["classes"]:
        assert item["name"] in classes
        assert f"{item['iou']:.3f}" in classes
    assert "it is damaged" in dom

    shot = tmp_path / "shot.png"
    browse(page, tmp_path / "profile2", f"--screenshot={shot}", "--window-size=1200,2400")
    pixels = np.asarray(Image.open(shot).convert("RGB")).reshape(-1, 3)
    for item in document["classes"]:
        color = [int(item["color"][i : i + 2], 16) for i in (1, 3, 5)]
        # Swatch, legend and bar have a few thousand pixels: so many show that the pictures are drawn, too.
        assert (pixels == color).all(axis=1).sum() > 15_000, item["name"]


def test_a_report_of_a_training_is_made_of_files(tmp_path, make_run):
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    Image.new("RGB", (20, 10)).save(tmp_path / "b.jpeg")
    (tmp_path / "c.png").write_text("no picture")
    pictures = tuple((name, str(tmp_path / name)) for name in ("a.png", "b.jpeg", "c.png", "d.png"))
    rows = ({"epoch": 1, "loss": 1.0, "miou": 0.5, "iou": [0.5, 0.5, 0.5]},)
    run = make_run((), training=rows, samples=(Sample("place", pictures),))
    write_training_report(run, tmp_path / "report")
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["report.html"]
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count('width="20" height="10"') == 2
    assert base64.b64encode((tmp_path / "b.jpeg").read_bytes()).decode() in page
    assert page.count("cannot be shown") == 2
    assert "No such file" in page
