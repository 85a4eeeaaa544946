"""The plan against brute force."""

import dataclasses
import json
import os
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import example, given
from hypothesis import strategies as st

from segbatch.classes import LabelMap
from segbatch.errors import InputError
from segbatch.geometry import Window
from segbatch.inference.plan import (
    Costs,
    ScenePlan,
    changed_scenes,
    costs,
    differences,
    file_stamp,
    fingerprint,
    plan_scene,
)
from segbatch.inference.settings import Settings
from segbatch.scenes import SceneInfo, SceneRef
from segbatch.scenes.area import SceneArea


def scene_info(width: int = 700, height: int = 500, **changes: Any) -> SceneInfo:
    known: dict[str, Any] = {
        "uri": "/data/a.tif",
        "width": width,
        "height": height,
        "dtype": "uint16",
        "band_names": ("", "", ""),
        "alpha": None,
        "nodata": None,
        "crs": None,
        "transform": Affine.identity(),
        "size": 1000,
        "modified": 5,
    }
    return SceneInfo(**(known | changes))


def make_plan(
    info: SceneInfo | None = None, ref: SceneRef | None = None, bands: tuple[int, ...] = (1, 2, 3), **changes: Any
) -> ScenePlan:
    settings: dict[str, Any] = {
        "stride": 32,
        "core": 64,
        "halo": 32,
        "window_pixels": 1088**2,
        "block_bytes": 1 << 20,
        "settings": Settings(),
        "num_classes": 4,
    }
    ref = ref or SceneRef("a", "/data/a.tif")
    return plan_scene(ref, info or scene_info(), bands, **(settings | changes))


@given(
    width=st.integers(1, 700),
    height=st.integers(1, 700),
    core=st.sampled_from(["auto", 32, 64, 160]),
    halo=st.sampled_from([0, 32, 96]),
    kilobytes=st.integers(1, 600),
)
def test_blocks_partition_the_scene_within_the_budget(
    width: int, height: int, core: Any, halo: int, kilobytes: int
) -> None:
    plan = make_plan(scene_info(width, height), core=core, halo=halo, block_bytes=kilobytes * 1024)
    owners = np.zeros((height, width), int)
    for block in plan.grid:
        owners[block.owned.slices] += 1
        assert block.read.width % 32 == block.read.height % 32 == 0
    assert (owners == 1).all()
    assert plan.shard[0] % plan.chunk[0] == plan.shard[1] % plan.chunk[1] == 0
    whole_core = plan.core[0] * plan.core[1] * 3 * 2
    assert plan.shard[0] * plan.shard[1] * 3 * 2 <= max(kilobytes * 1024, whole_core)


@pytest.mark.parametrize(
    ("size", "expected"),
    [(1, 32), (33, 64), (1024, 1024), (1025, 1056), (10_000, 10_016), (20_000, 10_240), (40_000, 10_240)],
)
def test_an_automatic_core_is_an_even_part_of_the_scene(size: int, expected: int) -> None:
    plan = make_plan(scene_info(size, 40), core="auto")
    assert plan.core == (64, expected)
    assert plan.grid.lattice.window_width * plan.grid.lattice.window_height <= 1088**2


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([8, 24, 32]), st.integers(1, 1 << 20))
def test_blocks_are_made_of_whole_tiles_of_a_tiff(width: int, height: int, core: int, block_bytes: int) -> None:
    plan = make_plan(scene_info(width, height), stride=8, core=core, block_bytes=block_bytes)
    for side, shard in zip((height, width), plan.shard, strict=True):
        assert shard >= side or shard % 16 == 0


@pytest.mark.parametrize(
    ("products", "written"),
    [((), 6), (("confidence",), 6), (("probabilities",), 21), (("confidence", "probabilities"), 22)],
)
def test_blocks_fit_the_budget_with_their_products(products: Any, written: int) -> None:
    """Three bands of 2 bytes, or what is written of 20 classes."""
    plan = make_plan(scene_info(9000, 9000), settings=Settings(products=products), num_classes=20, block_bytes=1 << 22)
    assert 0.8 * (1 << 22) < plan.shard[0] * plan.shard[1] * written <= 1 << 22


@pytest.mark.parametrize("blend", ["hann", "gaussian"])
def test_blended_windows_overlap(blend: Any) -> None:
    assert make_plan(settings=Settings(blend=blend)).grid.overlapping
    assert not make_plan().grid.overlapping
    with pytest.raises(InputError, match=f"blend {blend} needs windows that overlap: give a halo"):
        make_plan(settings=Settings(blend=blend), halo=0)


def test_large_cores_are_stored_in_chunks() -> None:
    assert make_plan(scene_info(9000, 9000), core=4096, block_bytes=1 << 28).chunk == (1024, 1024)
    assert make_plan(scene_info(9000, 9000), core=1056, block_bytes=1 << 28).chunk == (528, 528)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"core": 100}, "core 100 is not a multiple of the model's stride 32; the nearest are 96 and 128"),
        ({"core": 7}, "core 7 .* the nearest are 32"),
        ({"halo": 7}, "halo 7 .* the nearest are 0 and 32"),
    ],
)
def test_core_and_halo_keep_to_the_stride(changes: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_plan(**changes)


sizes = st.lists(st.tuples(st.integers(1, 400), st.integers(1, 400)), min_size=1, max_size=3)


@given(
    sizes=sizes,
    halo=st.sampled_from([32, 64, 96]),
    kilobytes=st.integers(1, 300),
    blend=st.sampled_from(["crop", "hann"]),
    views=st.sampled_from([1, 8]),
)
@example(sizes=[(400, 300)], halo=0, kilobytes=1, blend="crop", views=1)
def test_costs_are_what_counting_gives(
    sizes: list[tuple[int, int]], halo: int, kilobytes: int, blend: Any, views: int
) -> None:
    settings = Settings(blend=blend)
    plans = [
        make_plan(scene_info(width, height), halo=halo, block_bytes=kilobytes * 1024, bands=(1, 2), settings=settings)
        for width, height in sizes
    ]
    what = costs(plans, views)
    assert what == counted(plans, [None] * len(plans), views)
    assert what.pixels == sum(width * height for width, height in sizes)
    assert what.waste == what.pixels_run / what.pixels
    if blend == "crop":
        assert what.windows == what.unique_windows * views


@given(
    size=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    box=st.tuples(st.integers(0, 399), st.integers(0, 399), st.integers(1, 300), st.integers(1, 300)),
    halo=st.sampled_from([32, 96]),
    kilobytes=st.integers(1, 300),
    blend=st.sampled_from(["crop", "hann"]),
)
def test_costs_of_an_area_are_what_counting_gives(
    size: tuple[int, int], box: tuple[int, int, int, int], halo: int, kilobytes: int, blend: Any
) -> None:
    col, row = min(box[0], size[0] - 1), min(box[1], size[1] - 1)
    inside = Window(col, row, min(box[2], size[0] - col), min(box[3], size[1] - row))
    # Less than half a pixel smaller: it has the same pixels, and touches no other.
    outline = shapely.box(col + 0.25, row + 0.25, inside.col_end - 0.25, inside.row_end - 0.25)
    plan = make_plan(
        scene_info(*size),
        halo=halo,
        block_bytes=kilobytes * 1024,
        bands=(1, 2),
        settings=Settings(blend=blend),
        area=SceneArea(shapely.to_wkb(outline)),
    )
    what, expected = costs([plan]), counted([plan], [inside], 1)
    assert abs(what.pixels - expected.pixels) <= 0.5 * (inside.width + inside.height)  # the polygon's area
    exact = dataclasses.replace(what, pixels=expected.pixels, bytes_stored=expected.bytes_stored)
    assert exact == expected
    assert what.bytes_stored == 4 * what.pixels


def counted(plans: list[ScenePlan], areas: list[Window | None], views: int) -> Costs:
    """The costs of scenes of two bands of 2 bytes, block by block and window by window."""
    blocks = windows = pixels = bytes_read = block_bytes = window_pixels = pixels_run = 0
    unique = set()
    for number, (plan, area) in enumerate(zip(plans, areas, strict=True)):
        lattice = plan.grid.lattice
        size = lattice.window_height * lattice.window_width
        window_pixels = max(window_pixels, size)
        for block in plan.grid:
            block_bytes = max(block_bytes, block.read.area * (2 * 2 + 1) + plan.grid[0].owned.area)
            owned = block.owned if area is None else block.owned.intersection(area)
            if owned is None:
                continue
            blocks += 1
            pixels += owned.area
            inside = block.read.intersection(plan.info.window)
            assert inside is not None
            bytes_read += inside.area * 2 * 2
            for row, col in product(range(lattice.rows), range(lattice.cols)):
                core = lattice.core(row, col)
                if (lattice.window(row, col) if plan.grid.overlapping else core).intersection(owned):
                    windows += views
                    pixels_run += views * size
                    unique.add((number, row, col))
    return Costs(
        blocks=blocks,
        windows=windows,
        unique_windows=len(unique),
        pixels=pixels,
        pixels_run=pixels_run,
        bytes_read=bytes_read,
        bytes_stored=pixels * 2 * 2,
        block_bytes=block_bytes,
        window_pixels=window_pixels,
    )


def stamp(
    plan: ScenePlan, bundle: str = "b", label_map: LabelMap | None = None, settings: Settings | None = None
) -> dict[str, Any]:
    return fingerprint([plan], bundle, label_map or LabelMap(4), settings or Settings())


def box(*bounds: float) -> SceneArea:
    return SceneArea(shapely.to_wkb(shapely.box(*bounds)))


def test_the_same_plan_has_the_same_fingerprint() -> None:
    assert differences(stamp(make_plan()), stamp(make_plan())) == []


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (stamp(make_plan(), bundle="c"), "bundle"),
        (stamp(make_plan(core=128)), "core, halo or block size"),
        (stamp(make_plan(halo=64)), "core, halo or block size"),
        (stamp(make_plan(block_bytes=1 << 16)), "core, halo or block size"),
        (stamp(make_plan(ref=SceneRef("b", "/data/b.tif"))), "list of scenes"),
        (stamp(make_plan(scene_info(modified=6))), "the file itself of a"),
        (stamp(make_plan(scene_info(size=1001))), "the file itself of a"),
        (stamp(make_plan(scene_info(nodata=0.0))), "nodata"),
        (stamp(make_plan(bands=(3, 2, 1))), "bands"),
        (stamp(make_plan(area=box(0, 0, 9, 9))), "area of interest"),
        (stamp(make_plan(), settings=Settings(blend="hann")), "blend"),
        (stamp(make_plan(), settings=Settings(tta="d4")), "tta"),
        (stamp(make_plan(), settings=Settings(products=("confidence",))), "products"),
        (stamp(make_plan(), settings=Settings(backend="openvino")), "backend"),
        (stamp(make_plan(), settings=Settings(precision="bf16")), "precision"),
        (stamp(make_plan(), settings=Settings(batch_size=2)), "batch size"),
    ],
)
def test_what_changes_a_result_changes_the_fingerprint(other: dict[str, Any], named: str) -> None:
    found = differences(stamp(make_plan()), other)
    assert len(found) == 1
    assert named in found[0]


def test_labels_belong_to_the_fingerprint(tmp_path: Path) -> None:
    label = tmp_path / "label.tif"
    label.write_bytes(b"one")
    plan = make_plan(ref=SceneRef("a", "/data/a.tif", label=str(label)))
    before = stamp(plan)
    assert differences(before, stamp(plan)) == []
    assert "label" in differences(stamp(make_plan()), before)[-1]
    assert differences(before, stamp(plan, label_map=LabelMap(4, ((1, 0),)))) == ["the label values"]
    for changed in (LabelMap(4, attribute="kind"), LabelMap(4, background=2)):
        assert differences(before, stamp(plan, label_map=changed)) == ["the label values"]
    os.utime(label, ns=(1, 1))
    assert "label" in differences(before, stamp(plan))[0]


def test_label_values_do_not_matter_without_labels() -> None:
    assert stamp(make_plan()) == stamp(make_plan(), label_map=LabelMap(4, ((1, 0),)))


def test_many_changed_scenes_are_named_in_part() -> None:
    plans = [make_plan(ref=SceneRef(name, f"/data/{name}.tif")) for name in "abcde"]
    touched = [dataclasses.replace(plan, info=dataclasses.replace(plan.info, modified=9)) for plan in plans]
    before, after = (fingerprint(some, "b", LabelMap(4), Settings()) for some in (plans, touched))
    (found,) = differences(before, after)
    assert found.endswith("of a, b, c, ...")


def test_an_area_belongs_to_the_fingerprint() -> None:
    one, same, other = (stamp(make_plan(area=box(*bounds))) for bounds in ((0, 0, 9, 9), (0, 0, 9, 9), (0, 0, 9, 8)))
    assert differences(one, same) == []
    assert "area of interest" in differences(one, other)[0]


def test_scenes_that_changed_are_known_where_nothing_else_did() -> None:
    plans = [make_plan(ref=SceneRef(name, f"/data/{name}.tif")) for name in "abc"]

    def print_of(plans: list[ScenePlan], bundle: str = "b", **settings: Any) -> dict[str, Any]:
        return fingerprint(plans, bundle, LabelMap(4), Settings(**settings))

    before = print_of(plans)
    assert changed_scenes(before, print_of(plans)) == set()
    touched = dataclasses.replace(plans[1], info=dataclasses.replace(plans[1].info, modified=9))
    resized = make_plan(ref=SceneRef("c", "/data/c.tif"), core=128)
    assert changed_scenes(before, print_of([plans[0], touched, resized])) == {"b", "c"}
    assert changed_scenes(before, print_of(plans[:2])) is None
    assert changed_scenes(before, print_of(plans, "other bundle")) is None
    assert changed_scenes(before, print_of(plans, blend="hann")) is None
    assert changed_scenes({}, before) is None


def test_settings_survive_json() -> None:
    settings = Settings("gaussian", "d4", ("confidence", "probabilities"), "openvino", "bf16", 4)
    assert Settings.from_json(json.loads(json.dumps(settings.to_json()))) == settings
    assert [Settings(tta=tta).views for tta in ("none", "flips", "d4")] == [1, 4, 8]


def test_a_shapefile_is_all_of_its_files(tmp_path: Path) -> None:
    path = str(tmp_path / "polygons.shp")
    (tmp_path / "polygons.shp").write_bytes(b"shapes")
    (tmp_path / "polygons.dbf").write_bytes(b"water")
    before = file_stamp(path)
    assert before[1] == 11
    (tmp_path / "polygons.dbf").write_bytes(b"wood")
    assert file_stamp(path) != before
    assert file_stamp(str(tmp_path / "none.shp")) == (str(tmp_path / "none.shp"), -1, -1)
