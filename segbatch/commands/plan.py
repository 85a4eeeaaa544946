"""From a request to the plan of a mapping: scenes opened and checked, lattice and blocks laid over them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from segbatch.classes import LabelMap
from segbatch.commands.choose import Choice, OpenScene, choose
from segbatch.commands.progress import listed, say
from segbatch.commands.request import Request
from segbatch.commands.scenes import attempt_all, check_all, describe, fit_label
from segbatch.commands.workers import planned_workers
from segbatch.errors import InputError
from segbatch.inference.plan import ScenePlan, check_sizes, plan_scene
from segbatch.models.backends import is_installed, missing
from segbatch.models.card import Card, read_card
from segbatch.scenes import SceneRef
from segbatch.scenes.aoi import aoi_in_pixels, read_aoi


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What a mapping will do.

    Args:
        card: Of the bundle.
        label_map: From label values to class ids.
        choice: What is used where the request says auto.
        scenes: How each scene is mapped.
    """

    card: Card
    label_map: LabelMap
    choice: Choice
    scenes: tuple[ScenePlan, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A request whose scenes were opened and found to fit.

    Args:
        request: What to map.
        card: Of the bundle.
        label_map: From label values to class ids.
        scenes: In the order of the request.
    """

    request: Request
    card: Card
    label_map: LabelMap
    scenes: tuple[OpenScene, ...]

    def lay_out(self, choice: Choice) -> Plan:
        """Lay lattice and blocks over the scenes.

        Raises:
            InputError: Core or halo do not suit the model.
        """
        core, card = choice.core or self.request.inference.core, self.card
        scenes = tuple(
            plan_scene(
                scene.ref,
                scene.info,
                scene.bands,
                stride=card.stride,
                core=core,
                halo=choice.halo,
                window_pixels=choice.window_pixels,
                block_bytes=choice.block_mb * 2**20,
                settings=choice.settings,
                num_classes=len(card.classes),
                uniform=choice.uniform,
                area=scene.area,
            )
            for scene in self.scenes
        )
        return Plan(card, self.label_map, choice, scenes)


def sizes(scenes: Sequence[OpenScene | ScenePlan]) -> list[int]:
    """Pixels of each scene."""
    return [scene.info.window.area for scene in scenes]


def open_request(request: Request, set_aside: dict[str, str] | None = None) -> Opened:
    """Open the scenes and refuse what does not fit. Reads no pixel of the images.

    Args:
        request: What to map.
        set_aside: Takes, by its id, what is wrong with a scene that does not fit; None to refuse the request.

    Raises:
        InputError: A line for each scene that does not fit.
    """
    card = request.card or read_card(request.bundle)
    # Where labels go by names and colours, these are the bundle's: its hash, in the run's fingerprint, holds them.
    label_map = replace(request.label_map or card.label_map, classes=card.classes)
    if label_map.num_classes != len(card.classes):
        raise InputError(f"{request.bundle} has {len(card.classes)} classes, the labels have {label_map.num_classes}.")
    inference = request.inference
    if not is_installed(inference.backend):
        raise missing(inference.backend)
    check_sizes(card.stride, inference.core, inference.halo, inference.blend)
    aoi = None if inference.aoi is None else read_aoi(inference.aoi)

    def check(ref: SceneRef) -> OpenScene:
        info = describe(ref.image, request.nodata)
        bands = card.select_bands(info, request.bands)
        if ref.label is not None:
            fit_label(info, ref.label, label_map)
        return OpenScene(ref, info, bands, None if aoi is None else aoi_in_pixels(aoi, info))

    if set_aside is None:
        scenes = tuple(check_all(check, request.refs))
    else:
        tried = list(zip(request.refs, attempt_all(check, request.refs), strict=True))
        scenes = tuple(found for _, found in tried if not isinstance(found, InputError))
        set_aside |= {ref.id: str(found) for ref, found in tried if isinstance(found, InputError)}
    if (
        aoi is not None
        and set_aside is None
        and all(scene.area is not None and scene.area.is_empty for scene in scenes)
    ):
        raise InputError(f"{inference.aoi} touches none of the scenes: are its coordinates theirs?")
    if request.bands is None:
        _tell_alpha(card, scenes)
    return Opened(request, card, label_map, scenes)


def _tell_alpha(card: Card, scenes: Sequence[OpenScene]) -> None:
    """Say where a model takes as data what a file calls alpha: of near infrared that is right, of a mask it is not."""
    found = {
        scene.ref.id: name
        for scene in scenes
        for band, name in zip(scene.bands, card.band_names, strict=True)
        if band == scene.info.alpha
    }
    if found:
        name = next(iter(found.values()))
        say(
            f"Warning: the model takes {len(card.band_names)} bands, so a band that is tagged alpha is read as "
            f"{name or 'one of them'} and hides no pixel: {listed(list(found))}",
            "warning",
        )


def plan(request: Request) -> Plan:
    """What mapping would do on this machine, going by what is known of the bundle. Reads no pixel of the images.

    Raises:
        InputError: A line for each scene that does not fit.
    """
    opened = open_request(request)
    workers = planned_workers(request, sizes(opened.scenes))
    return opened.lay_out(choose(request, opened.card, opened.scenes, workers, None))
