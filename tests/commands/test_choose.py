"""What a run uses where its settings say auto, and that it keeps it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from segbatch.commands.choose import Choice, OpenScene, choose, with_wishes
from segbatch.commands.plan import open_request
from segbatch.commands.predict import predict
from segbatch.commands.request import Request
from segbatch.commands.workers import Workers
from segbatch.errors import InputError
from segbatch.inference.probe import Probe
from segbatch.inference.settings import Settings
from segbatch.models.card import read_card
from segbatch.models.halo import HaloCurve
from segbatch.models.profile import FAILED, Profile, Speed
from segbatch.scenes import SceneInfo

MakeRequest = Callable[..., Request]
CPU = Workers(count=1, threads=2, use_gpu=False, device="a processor, 2 threads", memory=2**34)
GPU = replace(CPU, use_gpu=True, device="a GPU", memory=2**36)
SPEEDS = {
    "eager/float32": Speed(2.0, 0.0, 1.0),
    "eager/bf16": Speed(4.0, 0.0, 0.9995),
    "openvino/bf16": Speed(5.0, 4.0, 0.9992),
    "compile/float32": Speed(9.0, 60.0, 0.99999),
    "onnx/float32": Speed(50.0, 0.0, 0.9),
    "openvino/float32": FAILED,
}


@pytest.fixture
def large(make_request: MakeRequest, tmp_path: Path, make_raster: Callable[..., str]) -> Callable[..., Choice]:
    """A function that chooses for a scene said to be of 20,000 x 20,000 pixels; its file is small."""
    path = make_raster(tmp_path / "a.tif", np.ones((3, 64, 64), np.uint8))

    def run(
        workers: Workers = CPU,
        speeds: dict[str, Speed] | None = None,
        side: int = 20_000,
        asked: list[Probe] | None = None,
        problem: str = "",
        **inference: Any,
    ) -> Choice:
        request = make_request(tmp_path / "run", {"a": path}, inference={"core": "auto", **inference})
        opened = open_request(request)
        scene = opened.scenes[0]
        info = replace(scene.info, width=side, height=side)

        def measure(probe: Probe) -> Profile:
            if asked is not None:
                asked.append(probe)
            if problem:
                raise InputError(problem)
            return Profile(workers.device, 400.0, SPEEDS if speeds is None else speeds)

        return choose(request, opened.card, [replace(scene, info=info)], workers, measure)

    return run


def test_a_long_run_takes_the_fastest_backend_that_agrees(large: Callable[..., Choice]) -> None:
    choice = large(side=40_000)
    assert (choice.settings.backend, choice.settings.precision) == ("compile", "float32")
    assert choice.agreement == 0.99999


def test_the_time_to_get_ready_counts(large: Callable[..., Choice]) -> None:
    choice = large(side=9_000)  # 81 Mpx: 20 s for eager bf16, 9 s and a minute for the compiled one
    assert (choice.settings.backend, choice.settings.precision) == ("openvino", "bf16")


def test_a_short_run_is_not_probed(large: Callable[..., Choice]) -> None:
    asked: list[Probe] = []
    choice = large(side=4_000, asked=asked)
    assert not asked
    assert (choice.settings.backend, choice.settings.precision) == ("eager", "float32")
    assert choice.agreement is None


def test_agreement_is_required(large: Callable[..., Choice]) -> None:
    strict = large(min_agreement=0.9999)
    assert (strict.settings.backend, strict.settings.precision) == ("compile", "float32")
    loose = large(min_agreement=0.5)
    assert loose.settings.backend == "onnx"


def test_names_are_obeyed_and_their_agreement_noted(large: Callable[..., Choice]) -> None:
    asked: list[Probe] = []
    named = large(side=500, backend="onnx", precision="float32", asked=asked)
    assert (named.settings.backend, named.settings.precision, named.agreement) == ("onnx", "float32", 0.9)
    assert [(probe.backend, probe.precision) for probe in asked] == [("onnx", "float32")]
    assert large(precision="bf16").settings.precision == "bf16"
    assert large(backend="openvino").settings.precision == "bf16"


def test_eager_alone_is_float32_without_a_probe(large: Callable[..., Choice]) -> None:
    asked: list[Probe] = []
    assert large(backend="eager", asked=asked).settings.precision == "float32"
    assert not asked


def test_a_backend_that_does_not_run_the_model_is_refused(large: Callable[..., Choice]) -> None:
    with pytest.raises(InputError, match="openvino/float32 does not run this model on a processor"):
        large(backend="openvino", precision="float32")


def test_windows_grow_with_the_memory(large: Callable[..., Choice]) -> None:
    little, much = large(replace(CPU, memory=2**30)), large(replace(CPU, memory=2**40))
    assert little.window_pixels < much.window_pixels == 6_000_000
    assert large(replace(CPU, memory=2**30), tta="flips").window_pixels < little.window_pixels
    assert large(replace(CPU, memory=1)).window_pixels == 256**2


def test_a_gpu_gets_larger_blocks_and_batches(large: Callable[..., Choice]) -> None:
    cpu, gpu = large(core=256), large(GPU, core=256)
    assert (cpu.settings.batch_size, cpu.block_mb) == (1, 32)
    assert (gpu.settings.batch_size, gpu.block_mb) == (16, 128)
    assert large(GPU, core=256, batch_size=3).settings.batch_size == 3
    # What the batch takes is in the budget too: 2 windows of 288 x 288 pixels at 600 bytes, by 0.7.
    assert large(replace(GPU, memory=int(2.2 * 288**2 * 600 / 0.7)), core=256).settings.batch_size == 2


def test_blended_windows_are_small_beside_their_blocks(large: Callable[..., Choice]) -> None:
    crop, hann = large(), large(blend="hann")
    assert (crop.window_pixels, crop.block_mb) == (6_000_000, 32)
    assert (hann.window_pixels, hann.block_mb) == (640**2, 128)


def test_other_backends_than_eager_get_one_shape_of_windows(
    make_request: MakeRequest, tmp_path: Path, make_raster: Callable[..., str]
) -> None:
    """Each shape takes them seconds to get ready for, and memory that they keep."""
    path = make_raster(tmp_path / "a.tif", np.ones((3, 64, 64), np.uint8))
    for backend in ("eager", "onnx"):
        request = make_request(tmp_path / "run", {"a": path}, inference={"core": "auto", "backend": backend})
        opened = open_request(request)
        scene = opened.scenes[0]
        sizes = (9_000, 7_000), (5_000, 8_000), (500, 300)
        scenes = [replace(scene, info=replace(scene.info, width=width, height=height)) for width, height in sizes]
        choice = choose(request, opened.card, scenes, CPU, lambda _: Profile(CPU.device, 400.0, SPEEDS))
        plans = replace(opened, scenes=tuple(scenes)).lay_out(choice).scenes
        assert len({plan.core for plan in plans}) == (3 if backend == "eager" else 1)
        assert (choice.core is None) == (backend == "eager")
        # No larger than the largest scene needs.
        small = choose(request, opened.card, scenes[2:], CPU, lambda _: Profile(CPU.device, 400.0, SPEEDS))
        (plan,) = replace(opened, scenes=tuple(scenes[2:])).lay_out(small).scenes
        assert max(plan.core) <= 512


def test_scenes_without_a_window_to_measure_with_are_mapped_all_the_same(
    large: Callable[..., Choice], capsys: pytest.CaptureFixture[str]
) -> None:
    choice = large(problem="a.tif has no window that is mostly valid.")
    assert (choice.settings.backend, choice.settings.precision) == ("eager", "float32")
    assert "no window that is mostly valid. Going on with eager/float32" in capsys.readouterr().err
    with pytest.raises(InputError, match="no window"):
        large(problem="a.tif has no window that is mostly valid.", backend="onnx")


def test_the_halo_follows_the_curve(
    make_request: MakeRequest, tmp_path: Path, make_raster: Callable[..., str], tiny_bundle: Path
) -> None:
    path = make_raster(tmp_path / "a.tif", np.ones((3, 600, 600), np.uint8))
    curve = HaloCurve(64, ((0, 0.1), (8, 1e-3), (16, 2e-5), (24, 0.0)), 10_000)
    for tolerance, expected in ((1e-2, 8), (1e-4, 16), (1e-6, 24)):
        request = make_request(tmp_path / "run", {"a": path}, inference={"core": 64, "halo_tolerance": tolerance})
        opened = open_request(replace(request, card=replace(read_card(tiny_bundle), halo_curve=curve)))
        assert choose(request, opened.card, opened.scenes, CPU, None).halo == expected


@pytest.mark.parametrize("backend", ["eager", "onnx"])
def test_the_halo_is_enough_for_the_scene_with_most_borders(
    make_request: MakeRequest, tmp_path: Path, make_raster: Callable[..., str], tiny_bundle: Path, backend: str
) -> None:
    """Though the largest is a single core, which needs none at all."""
    scenes = {"square": (3, 128, 128), "long": (3, 32, 500)}
    paths = {name: make_raster(tmp_path / f"{name}.tif", np.ones(shape, np.uint8)) for name, shape in scenes.items()}
    curve = HaloCurve(64, ((0, 0.1), (8, 1e-3), (16, 2e-5), (24, 0.0)), 10_000)
    for tolerance, expected in ((1e-2, 8), (1e-4, 16), (1e-6, 24)):
        wishes = {"core": 128, "halo_tolerance": tolerance, "backend": backend}
        request = make_request(tmp_path / "run", paths, inference=wishes)
        opened = open_request(replace(request, card=replace(read_card(tiny_bundle), halo_curve=curve)))
        choice = choose(request, opened.card, opened.scenes, CPU, None)
        assert choice.halo == expected
        shapes = {
            (plan.grid.lattice.window_height, plan.grid.lattice.window_width) for plan in opened.lay_out(choice).scenes
        }
        assert choice.uniform == (backend == "onnx")
        assert len(shapes) == (1 if choice.uniform else 2)


def test_a_choice_survives_json_and_yields_to_wishes(make_request: MakeRequest, tmp_path: Path) -> None:
    settings = Settings("hann", "flips", ("confidence",), "openvino", "bf16", 4)
    choice = Choice(32, 1_000_000, 64, settings, 0.9991, (512, 640), True, True)
    assert Choice.from_json(json.loads(json.dumps(choice.to_json()))) == choice
    same = make_request(tmp_path, {}, inference={"core": "auto", "blend": "hann", "tta": "flips", "confidence": True})
    assert with_wishes(choice, same) == choice
    other = make_request(tmp_path, {}, inference={"backend": "eager", "halo": 16, "batch_size": 2})
    changed = with_wishes(choice, other)
    assert (changed.halo, changed.settings.backend, changed.settings.batch_size) == (16, "eager", 2)
    assert changed.core == (64, 64)  # named by every request of these tests
    assert (changed.settings.blend, changed.settings.products) == ("crop", ())


def test_a_run_that_goes_on_keeps_its_choice(
    tmp_path: Path,
    make_raster: Callable[..., str],
    paint: Callable[..., NDArray[np.uint8]],
    make_request: MakeRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What another machine would choose does not matter, nor that half the blocks are there already."""
    from segbatch.commands import predict as command

    path = make_raster(tmp_path / "a.tif", paint(300, 200), tiled=True, blockxsize=64, blockysize=64)
    whole = predict(make_request(tmp_path / "whole", {"a": path}, inference={"core": 64, "halo": 8}))
    folder = tmp_path / "run"
    predict(make_request(folder, {"a": path}, inference={"core": 64, "halo": 8}))
    known = json.loads((folder / "run.json").read_text())["mapping"]["chosen"]
    assert known["halo"] == 8
    for ledger in (folder / "ledger").glob("*.jsonl"):
        ledger.unlink()
    (folder / "masks" / "a.tif").unlink()
    monkeypatch.setattr(command, "choose", lambda *_: pytest.fail("chosen anew"))
    again = predict(make_request(folder, {"a": path}, inference={"core": 64}))
    assert again["classes"] == whole["classes"]
    assert (folder / "masks" / "a.tif").read_bytes() == (tmp_path / "whole" / "masks" / "a.tif").read_bytes()
    with pytest.raises(InputError, match="a run that differs in .*blend"):
        predict(make_request(folder, {"a": path}, inference={"core": 64, "blend": "hann"}))


def test_scenes_of_a_request_are_open_scenes(
    make_request: MakeRequest, tmp_path: Path, make_raster: Callable[..., str]
) -> None:
    path = make_raster(tmp_path / "a.tif", np.ones((3, 40, 50), np.uint8))
    (scene,) = open_request(make_request(tmp_path / "run", {"a": path})).scenes
    assert isinstance(scene, OpenScene)
    assert isinstance(scene.info, SceneInfo)
    assert scene.area is None
