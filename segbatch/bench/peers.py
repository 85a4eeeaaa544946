"""The same weights, pixels and threads under segbatch and under other programs, each in a process of its own.

What counts is time at the same quality: the share of pixels whose class is not that of the prediction of the whole
image, away from its borders. From pixels as stored to class ids, after one window to warm up; reading and writing
files is left out, since the others leave it to the user. Each program runs as it comes, and once more with what
segbatch does for itself and any user of the others could do too: freed memory kept, channels last.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from segbatch.bench.backends import fastest_backend, measure_backends
from segbatch.bench.mapping import lay_out, settle
from segbatch.bench.material import Material, cores, make_request
from segbatch.bench.processes import alone
from segbatch.bench.seams import disagreement, inner
from segbatch.bench.show import figure, megabytes, print_table, rate
from segbatch.bench.square import SCENE_BORDER, Square, Whole, cut_square, predict_whole
from segbatch.bench.ways import OURS, WINDOWS, Way, other_ways, own_way, predict_square
from segbatch.commands.progress import say
from segbatch.errors import InputError, SegbatchError
from segbatch.inference.tuning import REFERENCE
from segbatch.models.card import read_card

_MIN_AGREEMENT = 0.999
"""As of a run whose backend is chosen: see `segbatch.config.Inference`."""

_PROBE_WINDOW = 1024


@dataclass(frozen=True, slots=True)
class PeerResult:
    """What a way to predict a square took.

    Args:
        way: The way.
        seconds: From pixels to class ids.
        memory: Peak resident bytes of the process.
        differing: Share of pixels away from the border whose class is not that of the whole prediction.
        problem: Why it did not run; empty where it did.
    """

    way: Way
    seconds: float | None = None
    memory: int | None = None
    differing: float | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class PeersResult:
    """All ways.

    Args:
        name: Of the model.
        scene: Path of the image.
        shape: (rows, columns) of the square.
        limit: Share of pixels that may differ for the same quality.
        whole: The prediction at once.
        results: Of each way.
        missing: Programs that are not installed.
    """

    name: str
    scene: str
    shape: tuple[int, int]
    limit: float
    whole: Whole
    results: Sequence[PeerResult]
    missing: Sequence[str]

    def best(self, ours: bool, *, plain: bool = False, as_it_comes: bool = False) -> PeerResult | None:
        """The fastest way that is good enough.

        Args:
            ours: Of segbatch, or of the others.
            plain: Only PyTorch as it is in float32.
            as_it_comes: Only without what segbatch does for itself and any user of the others could do too.
        """
        good = [
            result
            for result in self.results
            if result.seconds is not None
            and result.differing is not None
            and result.differing <= self.limit
            and (result.way.tool == OURS) == ours
            and (not plain or result.way.backend == REFERENCE)
            and not (as_it_comes and result.way.tuned)
        ]
        return min(good, key=lambda result: result.seconds or 0.0, default=None)

    def to_json(self) -> dict[str, Any]:
        """As plain data, with what follows from it."""
        return {
            **asdict(self),
            "time_over_best_peer": _ratio(self.best(True), self.best(False)),
            "time_over_best_peer_as_it_comes": _ratio(self.best(True), self.best(False, as_it_comes=True)),
            "time_over_best_peer_eager_float32": _ratio(self.best(True, plain=True), self.best(False)),
        }


def measure_peers(material: Material, folder: Path, side: int, limit: float) -> PeersResult:
    """Run all ways that are installed on a square of the scene.

    Args:
        material: Model and scene.
        folder: Where files go.
        side: Of the square.
        limit: Share of pixels that may differ for the same quality.
    """
    from segbatch.bench.tilers import PACKAGES, is_installed

    square = cut_square(material, folder, side)
    whole = alone(predict_whole, material.bundle, square)
    results = [_run(material, square, whole, way) for way in _own_ways(material, square, folder)]
    installed = [tool for tool in PACKAGES if is_installed(tool)]
    for tool in installed:
        for ways in other_ways(tool, square.shape):
            # More overlap takes longer: once it is enough there is no need for more.
            for way in ways:
                found = [_run(material, square, whole, replace(way, tuned=tuned)) for tuned in (False, True)]
                results += found
                if any(result.differing is not None and result.differing <= limit for result in found):
                    break
    missing = [tool for tool in PACKAGES if tool not in installed]
    return PeersResult(material.name, material.scene, square.shape, limit, whole, results, missing)


def _own_ways(material: Material, square: Square, folder: Path) -> Iterator[Way]:
    """As segbatch would do it by itself, and with windows as small as the others'; in float32 and in its fastest."""
    request = make_request(material.name, material.bundle, str(square.scene), folder / "own", {"engine": "inline"})
    settled = settle(request)
    scene = lay_out(request, settled).scenes[0]
    stride, auto = read_card(material.bundle).stride, settled.choice["halo"]
    backends = [REFERENCE]
    if material.trained:
        fastest = fastest_backend(measure_backends(material, _PROBE_WINDOW, folder), _MIN_AGREEMENT)
        backends = list(dict.fromkeys([REFERENCE, fastest]))
    for backend in backends:
        yield own_way(f"auto: core {scene.core[0]} x {scene.core[1]}", scene.core, auto, backend)
        for core in WINDOWS:
            for halo in sorted({-(-auto // (2 * stride)) * stride, auto, 2 * auto}):
                if core < min(square.shape):
                    yield own_way(f"core {core}", (core, core), halo, backend)


def _run(material: Material, square: Square, whole: Whole, way: Way) -> PeerResult:
    try:
        seconds, memory = alone(predict_square, material.bundle, square, way, _mask_path(square))
    except (SegbatchError, ImportError, RuntimeError, ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        # A program that fails is a result too, and says nothing of the others.
        return PeerResult(way, problem=next(iter(str(error).splitlines()), type(error).__name__)[:200])
    mask, truth = np.load(_mask_path(square)), np.load(whole.mask)
    away = inner(square.shape, SCENE_BORDER)
    say(f"  {way.tool}, {way.name}: {seconds:.1f} s")
    return PeerResult(way, seconds, memory, disagreement(mask[away], truth[away]))


def _mask_path(square: Square) -> Path:
    return square.values.with_name("mask.npy")


def _ratio(first: PeerResult | None, second: PeerResult | None) -> float | None:
    if first is None or second is None or not first.seconds or not second.seconds:
        return None
    return first.seconds / second.seconds


def print_peers(result: PeersResult) -> None:
    """A line for each way, and what follows."""
    height, width = result.shape
    pixels = height * width / 1e6
    rows = [["whole", "at once, eager/float32", figure(result.whole.seconds, ".1f"),
             f"{pixels / result.whole.seconds:.3f}", megabytes(result.whole.memory), "0"]]  # fmt: skip
    for found in result.results:
        way = found.way
        how = f", {way.backend}" if way.tool == OURS else ", tuned" if way.tuned else ""
        rows.append(
            [
                way.tool,
                found.problem or way.name + how,
                figure(found.seconds, ".1f"),
                figure(found.seconds and pixels / found.seconds, ".3f"),
                megabytes(found.memory),
                rate(found.differing),
            ]
        )
    rows += [[tool, "not installed", "-", "-", "-", "-"] for tool in result.missing]
    print_table(
        f"{result.name}, {height} x {width} px of {Path(result.scene).name}, {cores()} cores",
        ["program", "how", "s", "Mpx/s", "memory", "differs"],
        rows,
        names=2,
    )
    as_it_comes, tuned = result.best(False, as_it_comes=True), result.best(False)
    lines = [
        ("best other program, as it comes", as_it_comes),
        ("best other program, tuned", tuned),
        ("segbatch", result.best(True)),
        ("segbatch, eager/float32", result.best(True, plain=True)),
    ]
    print_table(
        f"where at most {rate(result.limit)} of the pixels {SCENE_BORDER} px away from the border differ",
        ["", "how", "s", "of the first", "of the second"],
        [
            [name, f"{found.way.tool} {found.way.name}" if found else "none",
             figure(found.seconds if found else None, ".1f"), figure(_ratio(found, as_it_comes), ".2f"),
             figure(_ratio(found, tuned), ".2f")]
            for name, found in lines
        ],
        names=2,
    )  # fmt: skip
