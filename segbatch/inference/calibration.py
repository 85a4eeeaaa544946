"""How large a halo a model needs: windows against whole images. Pure torch, knows nothing of Ray."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from segbatch.geometry import Window
from segbatch.inference.samples import Source, read_samples
from segbatch.models.backends.forward import Forward
from segbatch.models.halo import HaloCurve
from segbatch.scenes.scene import Pixels

SAMPLE_SIDE = 1024
"""Most pixels of a sample's side: no more than validation's windows, whose memory is known to suffice."""

_CORE = 1024
"""The curve's figures are for cores of this side."""

_MARGIN, _REACH = 8, 4
"""A sample's margin is an eighth of its side; the largest halo is a quarter of the side of the window inside."""

_FINEST_STEP = 4
"""Pixels between halos where the stride is finer than that."""

_NEGLIGIBLE = 1e-6
"""After two halos in a row with no more than this share of differing pixels, larger ones are not looked at."""

_LEAST_BORDER = 200
"""Pixels of core borders that it takes to tell of a halo; samples with fewer count together. One that differs is
4 / 1024 / 200 = 2e-5 of a core then, less than any tolerance to choose by."""

_PLACES = 0.9
"""Share of the samples that the curve holds for. Places differ a hundredfold in how much a lack of context changes, so
that an average promises too much of those where seams would show."""


def calibrate_halo(forward: Forward, sources: Sequence[Source], *, stride: int, pixels: int) -> HaloCurve | None:
    """Measure what halos are worth on samples of scenes; see `measure_halo`.

    Args:
        forward: The model, eager in float32.
        sources: The scenes.
        stride: Of the model.
        pixels: About how many pixels of the scenes to use; about twice as many are run through the model.

    Raises:
        SceneReadError: A scene is damaged.
    """
    samples = read_samples(sources, stride=stride, side=SAMPLE_SIDE, pixels=pixels)
    return measure_halo(forward, samples, stride=stride)


def least_side(stride: int) -> int:
    """Pixels a side that a scene must have to say anything."""
    # A margin of a stride on both sides, and in the window between them a halo of a stride, its fourth.
    return (2 + _REACH) * stride


def measure_halo(forward: Forward, samples: Iterable[Pixels], *, stride: int) -> HaloCurve | None:
    """Compare the prediction of windows with that of the samples that they are cut from.

    Each window serves for all halos: with a halo of h pixels, it would keep what is h pixels from its border. Around
    the windows the sample goes on, so that of the two predictions only the window's lacks context. Scene borders,
    where nothing is known beyond, play no part.

    Args:
        forward: The model, eager in float32.
        samples: Parts of scenes whose sides are multiples of the stride.
        stride: Of the model.

    Returns:
        The curve; None where the samples are too small, or too few of their pixels valid, to say anything.
    """
    rates: dict[int, list[float]] = defaultdict(list)
    differing: Counter[int] = Counter()
    border: Counter[int] = Counter()
    pixels = 0
    # What differs must not be rounding: TF32 and cuDNN's choice of algorithm depend on a window's shape.
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        for sample in samples:
            windows = _windows(sample.valid.shape, stride)
            if not windows:
                continue
            try:
                whole = _classes(forward, sample)
                alone = [_classes(forward, _cut(sample, window)) for window in windows]
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                continue  # a smaller one may fit; without any the card's default stands
            pixels += int(sample.valid[windows[0].slices].sum())
            for window, classes in zip(windows, alone, strict=True):
                valid = sample.valid[window.slices]
                differs = (whole[window.slices] != classes) & valid
                for halo in _halos(window, stride):
                    core = Window(0, 0, window.width, window.height).buffered(-halo).slices
                    differing[halo] += int(differs[core].sum())
                    border[halo] += _outline(valid[core])
            for halo in list(border):
                if border[halo] >= _LEAST_BORDER:  # else it waits for the next sample's
                    rates[halo].append(differing.pop(halo) / border.pop(halo))
    points = _points(rates, _step(stride))
    return HaloCurve(_CORE, points, pixels) if len(points) > 1 else None


def _windows(shape: tuple[int, ...], stride: int) -> list[Window]:
    """The middle of a sample, and its quarters where these are large enough; none where the sample is too small.

    The middle tells of large halos. The quarters have as much border again, so that less is left to chance, for little
    more than half of the middle's and the sample's own pixels.
    """
    if min(shape) < least_side(stride):
        return []
    row_off, col_off = (-(-side // (_MARGIN * stride)) * stride for side in shape)
    middle = Window(col_off, row_off, shape[1] - 2 * col_off, shape[0] - 2 * row_off)
    height, width = middle.height // (2 * stride) * stride, middle.width // (2 * stride) * stride
    if min(height, width) < _REACH * stride:
        return [middle]
    return [middle] + [
        Window(col, row, width, height)
        for row in (middle.row_off, middle.row_end - height)
        for col in (middle.col_off, middle.col_end - width)
    ]


def _halos(window: Window, stride: int) -> range:
    return range(0, min(window.width, window.height) // _REACH + 1, _step(stride))


def _step(stride: int) -> int:
    return -(-_FINEST_STEP // stride) * stride


def _cut(sample: Pixels, window: Window) -> Pixels:
    return Pixels(sample.values[:, *window.slices], sample.valid[window.slices])


def _classes(forward: Forward, pixels: Pixels) -> NDArray[np.uint8]:
    values = torch.from_numpy(np.ascontiguousarray(pixels.values)[None]).to(forward.device)
    valid = torch.from_numpy(np.ascontiguousarray(pixels.valid)[None, None]).to(forward.device)
    return forward.classes(values, valid)[0].cpu().numpy()


def _outline(valid: NDArray[np.bool_]) -> int:
    """Number of valid pixels along the border of a core."""
    return int(valid.sum() - valid[1:-1, 1:-1].sum())


def _points(rates: Mapping[int, Sequence[float]], step: int) -> tuple[tuple[int, float], ...]:
    """The curve's points: differing pixels for each pixel of border, times the border of a core by its area.

    Args:
        rates: Differing pixels for each pixel of border, of each sample, by halo.
        step: Between halos.
    """
    points: list[tuple[int, float]] = []
    for halo in range(0, max(rates, default=-1) + 1, step):
        if halo not in rates:
            break
        if len(points) > 1 and all(share <= _NEGLIGIBLE for _, share in points[-2:]):
            break
        rate = float(np.quantile(rates[halo], _PLACES, method="higher"))
        points.append((halo, min(1.0, rate * 4 / _CORE)))
    return tuple(points)
