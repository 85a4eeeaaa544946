"""Sample predictions: which windows are chosen, what is drawn of them, and what is read back."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from segbatch.classes import ClassTable, LabelMap
from segbatch.commands.folder import RunFolder
from segbatch.commands.samples import INDEX, choose_places, choose_shown, read_samples, spread, write_samples
from segbatch.commands.scenes import describe
from segbatch.errors import SceneReadError
from segbatch.geometry import Window
from segbatch.models.bundle import load_bundle
from segbatch.scenes import SceneRef
from segbatch.scenes.atlas import Part

CLASSES = ClassTable.from_items([("water", None), ("wood", None), ("road", None)])
counts_of = arrays(np.int64, st.tuples(st.integers(1, 40), st.just(3)), elements=st.integers(0, 5))


@pytest.fixture
def scene(tmp_path: Path, make_raster: Callable[..., str]) -> Part:
    """A scene of which the part from row 100 on is for validation, and in it a single pixel of road."""
    rng = np.random.default_rng(0)
    label = np.zeros((1300, 600), np.uint8)
    label[:, 300:] = 1
    label[1290, 5] = 2
    label[100:200] = 255
    image = rng.integers(0, 255, (3, 1300, 600), np.uint8)
    path = make_raster(tmp_path / "image.tif", image)
    ref = SceneRef("a", path, label=make_raster(tmp_path / "label.tif", label), window=(0, 100, None, None))
    return Part(ref, describe(path, None))


@pytest.fixture
def folder(tmp_path: Path, tiny_bundle: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.bundle.symlink_to(tiny_bundle)
    return run


def test_windows_partition_the_part_that_is_for_validation(scene: Part) -> None:
    windows = [place.window for place in spread([scene], stride=8, halo=16)]
    assert sum(window.area for window in windows) == 600 * 1200
    assert all(Window(0, 100, 600, 1200).contains(window) for window in windows)
    assert len(windows) == 2 * 3
    assert all(min(window.width, window.height) >= 290 for window in windows)


def test_of_many_windows_some_of_every_scene_are_looked_at(scene: Part) -> None:
    places = list(spread([scene] * 20, stride=8, halo=16))
    assert len(places) == 64
    single = list(spread([scene], stride=8, halo=16))
    assert {place.window for place in places} == {place.window for place in single}


@given(counts_of)
def test_each_class_that_is_there_is_predicted_where_it_is_most(counts: np.ndarray) -> None:
    chosen = choose_places(counts)
    assert len(chosen) == len(set(chosen)) == min(12, int((counts.sum(axis=1) > 0).sum()))
    for class_id in range(3):
        if counts[:, class_id].any():
            assert int(counts[:, class_id].argmax()) in chosen


@given(counts_of, st.lists(st.floats(0, 1), min_size=40, max_size=40, unique=True))
def test_the_worst_and_the_best_are_shown(counts: np.ndarray, drawn: list[float]) -> None:
    shares = drawn[: len(counts)]
    found = choose_shown(shares, counts, CLASSES)
    shown = dict(found)
    assert len(shown) == len(found) <= 6
    if len(shares) > 1:
        assert shown[int(np.argmin(shares))] == "lowest agreement"
        assert shown[int(np.argmax(shares))] == "highest agreement"


def test_rare_classes_are_shown_where_they_are_most() -> None:
    counts = np.array([[9, 9, 0], [9, 9, 0], [9, 9, 0], [9, 9, 1], [99, 9, 0]])
    assert choose_shown([0.5, 0.9, 0.1, 0.6, 0.4], counts, CLASSES) == [
        (2, "lowest agreement"),
        (0, "median agreement"),
        (1, "highest agreement"),
        (3, "most road"),
        (4, "most water"),
    ]
    assert choose_shown([0.5], counts[:1], CLASSES) == [(0, "the only one")]
    assert choose_shown([], counts[:0], CLASSES) == []


def test_pictures_are_written_and_read_back(scene: Part, folder: RunFolder) -> None:
    classes = load_bundle(folder.bundle).card.classes
    pairs = ((0, 0), (1, 1), (2, 2))
    write_samples(folder, [scene], LabelMap(len(classes), pairs), None, (1, 2, 3))
    content = json.loads((folder.samples / INDEX).read_text())
    samples = read_samples(folder)
    assert content["predicted"] == 6
    assert len(samples) == len(content["samples"]) >= 3
    assert samples[0].title.startswith("a, ")
    assert (
        f"lowest agreement of 6 windows, pixel accuracy {content['samples'][0]['pixel_accuracy']:.3f}"
        in samples[0].title
    )
    for row, sample in zip(content["samples"], samples, strict=True):
        assert [caption for caption, _ in sample.pictures] == ["image", "label", "class mask"]
        for _, path in sample.pictures:
            assert Image.open(path).size == tuple(row["window"][2:])
        label = np.asarray(Image.open(sample.pictures[1][1]))
        col, _, width, _ = row["window"]
        wood = (label == classes.palette()[1]).all(axis=-1)
        assert wood[-1, 0] == (col >= 300)
        assert wood[-1, -1] == (col + width > 300)
    # Again, the same bytes, and nothing left over.
    before = {path.name: path.read_bytes() for path in folder.samples.iterdir()}
    write_samples(folder, [scene], LabelMap(len(classes), pairs), None, (1, 2, 3))
    assert {path.name: path.read_bytes() for path in folder.samples.iterdir()} == before
    assert sorted(path.name for path in folder.path.iterdir()) == ["bundle", "sample_predictions"]


def test_a_scene_that_cannot_be_read_leaves_no_half(scene: Part, folder: RunFolder) -> None:
    with pytest.raises(SceneReadError):
        write_samples(folder, [scene], LabelMap(2), None, (1, 2, 3))  # 2 stands for no class
    assert not folder.samples.exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"predicted": 1, "samples": [{"scene": "a"}]}'])
def test_what_cannot_be_read_is_no_sample(tmp_path: Path, content: str) -> None:
    folder = RunFolder(tmp_path)
    assert read_samples(folder) == ()
    folder.samples.mkdir()
    (folder.samples / INDEX).write_text(content)
    assert read_samples(folder) == ()


def test_no_file_outside_of_the_folder_is_shown(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.samples.mkdir()
    picture = {"caption": "image", "file": "../../etc/passwd"}
    row = {"scene": "a", "window": [0, 0, 1, 1], "reason": "x", "pixel_accuracy": 0.5, "pictures": [picture]}
    (folder.samples / INDEX).write_text(json.dumps({"predicted": 1, "samples": [row]}))
    assert read_samples(folder)[0].pictures == (("image", str(folder.samples / "passwd")),)
