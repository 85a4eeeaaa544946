"""Scenes opened and split, and what is said of it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segbatch.commands.scenes as scenes_module
from segbatch.classes import LabelMap
from segbatch.commands.split import Labelled, label_counter, open_labelled, split_table, warn_of_known
from segbatch.config import RunConfig, Training, parse_config
from segbatch.errors import InputError
from segbatch.geometry import Window
from segbatch.scenes import SceneRef, open_scene
from segbatch.scenes.catalog import read_table

HEIGHT, WIDTH = 96, 128


@pytest.fixture
def configure(tmp_path: Path, make_raster: Callable[..., str]) -> Callable[..., RunConfig]:
    """A function (scenes section, **training) for four images without a map, two classes side by side."""
    label = np.zeros((HEIGHT, WIDTH), np.uint8)
    label[:, WIDTH // 2 :] = 1
    for name in "abcd":
        make_raster(tmp_path / f"{name}.tif", np.full((HEIGHT, WIDTH), 9, np.uint8))
        make_raster(tmp_path / f"{name}_label.tif", label)

    def make(scenes: dict[str, Any], **training: Any) -> RunConfig:
        data = {
            "name": "test",
            "output": str(tmp_path / "run"),
            "classes": [{"name": "left"}, {"name": "right"}],
            "scenes": {"root": str(tmp_path), **scenes},
            "training": {"tile": 32, "augment": "flips", **training},
        }
        return parse_config(data, "test.yaml")

    return make


def entry(name: str, **more: Any) -> dict[str, Any]:
    return {"image": f"{name}.tif", "label": f"{name}_label.tif", **more}


def names(scenes: Labelled, role: Any) -> list[str]:
    return [Path(part.ref.image).stem for part in scenes[role]]


def test_lists_are_taken_as_they_are(configure: Callable[..., RunConfig], capsys: pytest.CaptureFixture[str]) -> None:
    found = open_labelled(configure({"train": [entry("a", group="x"), entry("b")], "validate": [entry("c")]}))
    assert (names(found, "train"), names(found, "validate")) == (["a", "b"], ["c"])
    said = capsys.readouterr().err
    assert said == "Training on 2 scenes of x (0.025 Mpx); validating on 1 scene (0.012 Mpx)\n"


def test_groups_are_split_and_named(configure: Callable[..., RunConfig], capsys: pytest.CaptureFixture[str]) -> None:
    train = [entry(name, group=group) for name, group in zip("abcd", "xyzx", strict=True)]
    found = open_labelled(configure({"train": train, "split": {"by": "group", "validate": 0.5}}))
    assert sorted(names(found, "train") + names(found, "validate")) == list("abcd")
    assert {"a", "d"} in ({*names(found, "train")}, {*names(found, "validate")})
    said = capsys.readouterr().err.splitlines()
    sides = ["2 scenes of x (0.025 Mpx)", "2 scenes of y, z (0.025 Mpx)"]
    assert said[0] in [f"Training on {a}; validating on {b}" for a, b in (sides, sides[::-1])]
    assert said[1:] == ["  validation has 50% of the labelled pixels"]


def test_blocks_keep_half_a_tile_away_unless_told_otherwise(
    configure: Callable[..., RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    scenes = {"train": [entry("a"), entry("b")], "split": {"by": "block", "block": 32, "validate": 0.1}}
    found = open_labelled(configure(scenes))
    said = capsys.readouterr().err
    # 2 of 24 blocks.
    assert "validating on 2 windows of 2 scenes (0.002 Mpx)" in said
    left = 2 * HEIGHT * WIDTH - sum(part.window.area for parts in found.values() for part in parts)
    assert f"{left / 1e6:.3f} Mpx around its blocks are left out" in said
    for buffer, scene in ((16, scenes), (3, {**scenes, "buffer": 3}), (0, {**scenes, "buffer": 0})):
        found = open_labelled(configure(scene))
        near = min(
            max(
                max(v.col_off - t.col_end, t.col_off - v.col_end),
                max(v.row_off - t.row_end, t.row_off - v.row_end),
            )
            for validated in found["validate"]
            for trained in found["train"]
            if trained.ref.image == validated.ref.image
            for v, t in [(validated.window, trained.window)]
        )
        assert near == buffer


def test_tiles_of_other_trainings_keep_away_too(configure: Callable[..., RunConfig]) -> None:
    config = configure({"train": [entry("a"), entry("b")], "split": {"by": "block", "block": 32, "validate": 0.1}})
    for others, buffer in (([], 16), ([Training(tile=64)], 32)):
        found = open_labelled(config, others)
        nearest = min(
            max(v.col_off - t.col_end, t.col_off - v.col_end, v.row_off - t.row_end, t.row_off - v.row_end)
            for validated in found["validate"]
            for trained in found["train"]
            if trained.ref.image == validated.ref.image
            for v, t in [(validated.window, trained.window)]
        )
        assert nearest == buffer


def test_a_class_that_one_side_lacks_is_named(
    configure: Callable[..., RunConfig], capsys: pytest.CaptureFixture[str], make_raster: Callable[..., str]
) -> None:
    config = configure({"train": [entry(name) for name in "abcd"], "split": {"by": "scene"}})
    for name in "abc":
        make_raster(Path(config.scenes.root) / f"{name}_label.tif", np.zeros((HEIGHT, WIDTH), np.uint8))
    open_labelled(config)
    assert "Warning: right will hardly be " in capsys.readouterr().err


def test_overlaps_and_odd_groups_are_refused(configure: Callable[..., RunConfig]) -> None:
    lists = {"train": [entry("a", window={"height": 60})], "validate": [entry("a", window={"row_off": 50})]}
    with pytest.raises(InputError, match=r"a\.tif for training and validation overlap"):
        open_labelled(configure(lists))
    grouped = [entry(name, group="x") for name in "abcd"]
    with pytest.raises(InputError, match=r"the same group x.*by: group"):
        open_labelled(configure({"train": grouped, "split": {"by": "scene"}}))
    found = open_labelled(configure({"train": grouped, "split": {"by": "block", "block": 64}}))
    assert {part.ref.group for parts in found.values() for part in parts} == {"x"}


def test_an_image_of_many_windows_is_opened_once(
    configure: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def count(uri: str, nodata: float | None = None) -> Any:
        opened.append(uri)
        return open_scene(uri, nodata)

    monkeypatch.setattr(scenes_module, "open_scene", count)
    windows = [entry("a", window={"row_off": row, "height": 1}) for row in range(40)]
    config = configure({"train": [*windows, entry("b")], "validate": [entry("c")]})
    found = open_labelled(config)
    assert len(found["train"]) == 41
    assert sorted(Path(uri).stem for uri in opened) == ["a", "b", "c"]


def test_the_table_gives_the_same_split_back(configure: Callable[..., RunConfig], tmp_path: Path) -> None:
    listed = configure({role: [{"table": "split.csv", "where": {"role": role}}] for role in ("train", "validate")})
    train = [entry("a", group="01", pixel_size_um=0.5), entry("b"), entry("c", group="é, x")]
    by_group = configure({"train": [train[0], entry("b", group="02")], "split": {"by": "group", "validate": 0.5}})
    found = open_labelled(by_group)
    (tmp_path / "split.csv").write_bytes(split_table(by_group, found))
    again = open_labelled(listed)
    for role in ("train", "validate"):
        assert [(part.ref.group, part.window) for part in again[role]] == [
            (part.ref.group, part.window) for part in found[role]
        ]
    # A split by block has one group on both sides, which lists may not have.
    by_block = configure({"train": train, "split": {"by": "block", "block": 40}})
    found = open_labelled(by_block)
    (tmp_path / "split.csv").write_bytes(split_table(by_block, found))
    again = open_labelled(listed)
    for role in ("train", "validate"):
        assert again[role] == [part._replace(ref=replace(part.ref, group=None)) for part in found[role]]
    by_hand = configure({"train": [entry("a")], "validate": [entry("b")]})
    (tmp_path / "split.csv").write_bytes(split_table(by_hand, open_labelled(by_hand)))
    assert [ref.window for ref in read_table(str(tmp_path / "split.csv"))] == [(0, 0, WIDTH, HEIGHT)] * 2


def test_labels_are_counted_by_a_look(configure: Callable[..., RunConfig], make_raster: Callable[..., str]) -> None:
    config = configure({"train": [entry("a"), entry("b")], "validate": [entry("c")]})
    # Larger than the look: 2400 px become 1024.
    label = np.full((HEIGHT, 2400), 255, np.uint8)
    label[:, :1200] = 1
    for kind, values in (("", np.ones_like(label)), ("_label", label)):
        make_raster(Path(config.scenes.root) / f"b{kind}.tif", values)
    parts = open_labelled(config)["train"]
    count = label_counter(parts, LabelMap(2))
    assert count(parts[0], [Window(0, 0, 128, 96), Window(32, 0, 64, 10)]).tolist() == [[6144, 6144], [320, 320]]
    wide = count(
        parts[1], [Window(0, 0, 2400, 96), Window(0, 0, 600, 96), Window(1800, 0, 600, 96), Window(9, 9, 1, 1)]
    )
    assert wide[:, 0].tolist() == [0] * 4
    assert wide[:, 1] == pytest.approx([1200 * 96, 600 * 96, 0, 1], rel=0.01)


def test_scenes_that_the_model_knows_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split = tmp_path / "split.csv"
    refs = [SceneRef("a", "/x/a.tif", "l"), SceneRef("b", "/x/b.tif"), SceneRef("c", "/x/c.tif", "l")]
    warn_of_known(refs, split)
    split.write_text("image,role\n/x/a.tif,train\n/x/a.tif,validate\n/x/b.tif,train\n")
    warn_of_known(refs, split)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == ("Warning: the model was trained or validated on a: its accuracy will not be that of other scenes.")
    split.write_bytes(b"\0\0nothing")
    warn_of_known(refs, split)
    assert capsys.readouterr().err == ""
