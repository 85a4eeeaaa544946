"""The plan against brute force."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from segbatch.classes import LabelMap
from segbatch.errors import InputError
from segbatch.inference.plan import ScenePlan, costs, differences, fingerprint, plan_scene
from segbatch.scenes import SceneInfo, SceneRef


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
    settings: dict[str, Any] = {"stride": 32, "core": 64, "halo": 32, "block_bytes": 1 << 20}
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
    ("size", "expected"), [(1, 32), (33, 64), (1024, 1024), (1025, 544), (6272, 896), (20_000, 1024)]
)
def test_an_automatic_core_is_an_even_part_of_the_scene(size: int, expected: int) -> None:
    plan = make_plan(scene_info(size, 40), core="auto")
    assert plan.core == (64, expected)


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


@given(
    sizes=st.lists(st.tuples(st.integers(1, 400), st.integers(1, 400)), min_size=1, max_size=3),
    halo=st.sampled_from([0, 32, 64]),
    kilobytes=st.integers(1, 300),
)
def test_costs_are_what_counting_gives(sizes: list[tuple[int, int]], halo: int, kilobytes: int) -> None:
    plans = [
        make_plan(scene_info(width, height), halo=halo, block_bytes=kilobytes * 1024, bands=(1, 2))
        for width, height in sizes
    ]
    what = costs(plans)
    bytes_read = windows = largest = 0
    for plan in plans:
        for block in plan.grid:
            inside = block.read.intersection(plan.info.window)
            assert inside is not None
            bytes_read += inside.area * 2 * 2
            windows += -(-block.owned.width // 64) * -(-block.owned.height // 64)
            largest = max(largest, block.read.area * (2 * 2 + 1))
    assert what.blocks == sum(len(plan.grid) for plan in plans)
    assert what.windows == windows
    assert what.pixels == sum(width * height for width, height in sizes)
    assert what.pixels_run == windows * (64 + 2 * halo) ** 2
    assert what.bytes_read == bytes_read
    assert what.block_bytes == largest
    assert what.waste == what.pixels_run / what.pixels


def stamp(plan: ScenePlan, bundle: str = "b", label_map: LabelMap | None = None) -> dict[str, Any]:
    return fingerprint([plan], bundle, label_map or LabelMap(4))


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
    os.utime(label, ns=(1, 1))
    assert "label" in differences(before, stamp(plan))[0]


def test_label_values_do_not_matter_without_labels() -> None:
    assert stamp(make_plan()) == stamp(make_plan(), label_map=LabelMap(4, ((1, 0),)))


def test_many_changed_scenes_are_named_in_part() -> None:
    plans = [make_plan(ref=SceneRef(name, f"/data/{name}.tif")) for name in "abcde"]
    touched = [dataclasses.replace(plan, info=dataclasses.replace(plan.info, modified=9)) for plan in plans]
    (found,) = differences(fingerprint(plans, "b", LabelMap(4)), fingerprint(touched, "b", LabelMap(4)))
    assert found.endswith("of a, b, c, ...")
