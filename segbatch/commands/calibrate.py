"""Measure on scenes what halos are worth to a bundle's model, and note it on the bundle's card."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segbatch.commands.folder import RunFolder
from segbatch.commands.lock import hold
from segbatch.commands.progress import counted, duration, say
from segbatch.commands.scenes import check_all, describe
from segbatch.errors import InputError
from segbatch.models.card import CARD, Card, read_card, write_halo_curve
from segbatch.models.halo import HaloCurve
from segbatch.scenes import SceneRef
from segbatch.scenes.catalog import expand
from segbatch.storage import is_remote

if TYPE_CHECKING:
    from segbatch.inference.samples import Source

_PIXELS = 18_000_000
"""Of the scenes, at the most; about twice as many are run through the model."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was found.

    Args:
        card: Of the bundle, with the new curve.
        scenes: Number of scenes.
    """

    card: Card
    scenes: int

    @property
    def curve(self) -> HaloCurve:
        """The new curve."""
        assert self.card.halo_curve is not None  # it has just been measured
        return self.card.halo_curve

    def lines(self, tolerance: float) -> list[tuple[str, str]]:
        """(name, value) lines for people.

        Args:
            tolerance: Share of pixels that may differ, by which ``auto`` chooses.
        """
        curve = self.curve
        side = curve.core
        lines = [("measured on", f"{curve.pixels / 1e6:.1f} million pixels of {counted(self.scenes, 'scene')}")]
        lines += [
            (
                f"halo {halo} px",
                f"{share:.1e} of pixels differ from the whole image's; "
                f"{((side + 2 * halo) / side) ** 2:.2f} pixels run for each pixel kept",
            )
            for halo, share in curve.points
        ]
        return [*lines, ("auto", self._auto(tolerance))]

    def _auto(self, tolerance: float) -> str:
        side = self.curve.core
        border = 4 / side
        halo = self.card.auto_halo(tolerance, lambda halo: border)
        taken = f"takes {halo} px at cores of {side} px"
        if self.curve.expected(halo, border) <= tolerance:
            return f"{taken}, the smallest halo with at most {tolerance:.0e}; smaller cores need larger ones"
        return f"{taken}, though more than {tolerance:.0e} differ: these scenes tell of none that is good enough"


def calibrate(
    bundle: Path, images: Sequence[str], *, bands: list[int | str] | None = None, nodata: float | None = None
) -> Calibration:
    """Measure a bundle's halo curve and put it on its card. SIGTERM ends it as Ctrl-C does, with the card as it was.

    Meanwhile no other command writes the bundle: what was measured of one model must not go on the card of another.

    Args:
        bundle: Folder of the bundle.
        images: Paths, globs or URLs of scenes.
        bands: Bands to use, by number or name; None for the bundle's.
        nodata: Fill value that overrides the files' own.

    Raises:
        FolderInUseError: Another command writes the bundle, or the run that it belongs to.
        InputError: The bundle is none or cannot be written to, a scene does not fit it, or the scenes are too
            small or too empty.
    """
    read_card(bundle)  # else there is nothing to hold
    folder = _folder_to_hold(bundle)
    if not is_remote(bundle) and not all(os.access(path, os.W_OK) for path in (bundle, folder.path)):
        raise InputError(f"The bundle {bundle} cannot be written to: copy it, and calibrate the copy.")
    with hold(folder):
        sources = _open(read_card(bundle), images, bands, nodata)
        curve = _measure(bundle, sources)
        try:
            write_halo_curve(bundle, curve)
        except OSError as error:
            raise InputError(f"{bundle / CARD} cannot be written: {error}") from error
    return Calibration(read_card(bundle), len(sources))


def _folder_to_hold(bundle: Path) -> RunFolder:
    """The run that the bundle belongs to, whose commands hold its folder, or else the bundle's own."""
    bundle = bundle.resolve()
    run = RunFolder(bundle.parent)
    return run if run.bundle == bundle and run.read() else RunFolder(bundle)


def _open(card: Card, images: Sequence[str], bands: list[int | str] | None, nodata: float | None) -> "list[Source]":
    from segbatch.inference.calibration import least_side
    from segbatch.inference.samples import Source

    def check(ref: SceneRef) -> Source:
        info = describe(ref.image, nodata)
        return Source(ref.image, nodata, card.select_bands(info, bands), info.window)

    sources = check_all(check, [ref for image in images for ref in expand(image)])
    least = least_side(card.stride)
    large = [source for source in sources if min(source.window.width, source.window.height) >= least]
    if not large:
        largest = max((source.window for source in sources), key=lambda window: window.area)
        raise InputError(
            f"The largest scene has {largest.width} x {largest.height} pixels, but to measure the halo of a model of "
            f"stride {card.stride} takes {least} x {least}: give larger ones."
        )
    return large


def _measure(bundle: Path, sources: "Sequence[Source]") -> HaloCurve:
    import torch

    from segbatch.inference.calibration import calibrate_halo
    from segbatch.models.allocator import keep_freed_memory
    from segbatch.models.backends.forward import Forward
    from segbatch.models.bundle import load_bundle

    keep_freed_memory()
    loaded = load_bundle(bundle)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    say(f"Comparing windows with whole images on samples of {counted(len(sources), 'scene')}")
    started = time.monotonic()
    curve = calibrate_halo(
        Forward(loaded.model, loaded.card.mean, loaded.card.std, device=device),
        sources,
        stride=loaded.card.stride,
        pixels=_PIXELS,
    )
    if curve is None:
        raise InputError(
            "The scenes are too small, or have too few valid pixels, to measure the halo: give larger ones, or check "
            "their fill value (--nodata)."
        )
    say(f"Calibrated in {duration(time.monotonic() - started)}: the curve is on {bundle / CARD}")
    return curve
