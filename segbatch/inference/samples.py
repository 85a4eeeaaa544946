"""Samples of scenes, to measure a model on: few, from many scenes, and where there is something to see."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from segbatch.geometry import Window
from segbatch.scenes import SceneReader, open_scene
from segbatch.scenes.raster import small_cache
from segbatch.scenes.scene import Pixels

_MOST_SOURCES = 32
_MOST_PLACES = 64
_PROBE_SIDE = 64


@dataclass(frozen=True, slots=True)
class Source:
    """A scene, or a part of one, that samples may be taken from.

    Args:
        image: Path or URL.
        nodata: Fill value that overrides the file's own.
        bands: 1-based band numbers in the order of the model's channels.
        window: The part to use.
    """

    image: str
    nodata: float | None
    bands: tuple[int, ...]
    window: Window


def read_samples(sources: Sequence[Source], *, stride: int, side: int, pixels: int) -> Iterator[Pixels]:
    """Read samples, the best of each scene first, then the second best of each, and so on.

    Samples without a valid pixel are left out. The same scenes always give the same samples.

    Args:
        sources: The scenes; of many, some.
        stride: Sides of samples are multiples of it, rounded down.
        side: Most pixels of a sample's side.
        pixels: About how many pixels to read.

    Raises:
        SceneReadError: A scene is damaged.
    """
    sources = sources[:: -(-len(sources) // _MOST_SOURCES)]
    ranked = [(source, _ranked_places(source, stride, side)) for source in sources]
    for rank in range(_MOST_PLACES):
        for source, places in ranked:
            if rank >= len(places):
                continue
            if pixels <= 0:
                return
            pixels -= places[rank].area
            with small_cache(), open_scene(source.image, source.nodata) as reader:
                sample = reader.read(places[rank], source.bands)
            if sample.valid.any():
                yield sample


def _ranked_places(source: Source, stride: int, side: int) -> list[Window]:
    """Where samples may be taken, the most promising first.

    A look at the middle of each place tells more than nothing, and costs little even in files without overviews:
    an empty margin, or the bare glass of a slide, would say that the model needs no context.
    """
    places = _places(source.window, stride, side)
    if len(places) > _MOST_PLACES:
        chosen = np.random.default_rng(0).choice(len(places), _MOST_PLACES, replace=False)
        places = [places[index] for index in sorted(chosen.tolist())]
    if len(places) < 2:
        return places
    with small_cache(), open_scene(source.image, source.nodata) as reader:
        return sorted(places, key=lambda place: -_promise(reader, place, source.bands))


def _places(window: Window, stride: int, side: int) -> list[Window]:
    """Places that do not overlap, spread evenly; none where a side is shorter than the stride."""
    height, width = (min(side, extent) // stride * stride for extent in (window.height, window.width))
    if not height or not width:
        return []
    return [
        Window(window.col_off + col, window.row_off + row, width, height)
        for row in _starts(window.height, height)
        for col in _starts(window.width, width)
    ]


def _starts(extent: int, side: int) -> list[int]:
    return np.linspace(0, extent - side, extent // side).astype(int).tolist()


def _promise(reader: SceneReader, place: Window, bands: Sequence[int]) -> float:
    """Share of valid pixels times contrast, around the middle of a place."""
    height, width = min(_PROBE_SIDE, place.height), min(_PROBE_SIDE, place.width)
    probe = Window(
        place.col_off + (place.width - width) // 2, place.row_off + (place.height - height) // 2, width, height
    )
    values, valid = reader.read(probe, bands)
    if not valid.any():
        return 0.0
    return float(valid.mean() * values[:, valid].astype(np.float64).std(axis=1).mean())
