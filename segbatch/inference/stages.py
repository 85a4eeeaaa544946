"""The stages of mapping, as plain callables that know nothing of Ray: read, predict, write.

The engines string them together. A scene that cannot be read yields a block with an error, which the
later stages pass on into the ledger: one bad scene never takes a run down.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbatch.classes import NODATA, LabelMap
from segbatch.errors import InputError, SceneReadError, SegbatchError, explain
from segbatch.inference.files import BlockWriter
from segbatch.inference.ledger import LedgerRow, LedgerWriter
from segbatch.inference.memory import resident_memory
from segbatch.inference.plan import ScenePlan
from segbatch.inference.settings import Settings
from segbatch.masks import CLASS_MASK
from segbatch.models.allocator import keep_freed_memory, touched_memory
from segbatch.models.threads import wait_without_spinning
from segbatch.scenes import LabelReader, SceneReader, open_scene
from segbatch.scenes.raster import small_cache
from segbatch.scenes.scene import read_padded

DEVICE_SECONDS = ("predict", "upload", "forward", "download")
"""Stages of a block that the predicting process times."""

_OPEN_SCENES = 4


@dataclass(frozen=True, slots=True, eq=False)
class BlockPixels:
    """A block as read, halo included.

    Args:
        scene: Index of the scene in the plan.
        block: Number of the block in the scene's grid.
        values: (bands, height, width) as stored; empty where there is nothing to predict.
        valid: (height, width) bool, True = a real pixel; likewise.
        wanted: (rows, columns) bool of the pixels that the block owns, True = in the area of interest; None where
            that is the whole scene.
        started: When reading began, in seconds since the epoch.
        seconds: By stage.
        error: Why the block could not be read, or None.
    """

    scene: int
    block: int
    values: NDArray[Any]
    valid: NDArray[np.bool_]
    wanted: NDArray[np.bool_] | None
    started: float
    seconds: dict[str, float] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class BlockMask:
    """A block as predicted.

    Args:
        scene: Index of the scene in the plan.
        block: Number of the block in the scene's grid.
        arrays: By name, `CLASS_MASK` and the products asked for: (height, width) or (classes, height, width) uint8 of
            the pixels that the block owns; empty where none is predicted.
        windows: Windows run through the model.
        started: When reading began, in seconds since the epoch.
        seconds: By stage.
        error: Why the block failed, or None.
        note: What had to be changed to fit the device's memory; empty if nothing.
        memory: Bytes that the predicting process held when it was done.
    """

    scene: int
    block: int
    arrays: Mapping[str, NDArray[np.uint8]]
    windows: int
    started: float
    seconds: dict[str, float]
    error: str | None = None
    note: str = ""
    memory: int = 0


class ReadStage:
    """Reads a block and its halo with one windowed read.

    Args:
        scenes: The plan.
    """

    def __init__(self, scenes: Sequence[ScenePlan]) -> None:
        self._scenes = scenes

    def __call__(self, scene: int, block: int) -> BlockPixels:
        """Read block ``block`` of scene ``scene``; a damaged scene gives a block with an error."""
        started, clock = time.time(), time.perf_counter()
        plan = self._scenes[scene]
        place = plan.grid[block]
        nothing = np.zeros((len(plan.bands), 0, 0), plan.info.dtype), np.zeros((0, 0), bool)
        wanted = None if plan.area is None else plan.area.mask(place.owned)
        error = None
        try:
            if wanted is None or wanted.any():
                with small_cache():
                    reader = _open_cached(plan.info.uri, plan.info.nodata)
                    values, valid = read_padded(reader, place.read, plan.bands)
                inside = valid[place.kept.slices]
                if not (inside if wanted is None else inside & wanted).any():
                    values, valid = nothing
            else:
                values, valid = nothing
        except Exception as problem:  # whatever a file does to the libraries that read it, it is this scene's alone
            _forget(plan.info.uri)
            (values, valid), error = nothing, explain(problem, f"{plan.info.uri} cannot be read")
        return BlockPixels(scene, block, values, valid, wanted, started, {"read": time.perf_counter() - clock}, error)


class PredictStage:
    """Holds the model and turns pixels into class masks.

    Args:
        scenes: The plan.
        first: Index of the scene that comes first: the backend gets ready for its windows.
        bundle: Folder of the bundle.
        settings: How windows become class masks.
        quantized: File of the int8 model, where the precision is int8.
        window_bytes: Memory that a forward pass takes in this process, as far as it is known; 0 if not.
        threads: Torch threads, or None to leave them as they are.
        device: Where the model runs.
    """

    def __init__(
        self,
        scenes: Sequence[ScenePlan],
        first: int,
        bundle: str,
        settings: Settings,
        quantized: str | None,
        window_bytes: int,
        threads: int | None,
        device: str,
    ) -> None:
        self._scenes = scenes
        self._device = device
        keep_freed_memory()
        wait_without_spinning()
        with touched_memory(window_bytes if device == "cpu" else 0):
            # Reading and writing workers import this module too, and torch would cost them seconds.
            from segbatch.inference.load import load_predictor

            self._predictor = load_predictor(bundle, settings, quantized, threads, device)
        plan = scenes[first]
        lattice = plan.grid.lattice
        self._predictor.prepare(len(plan.bands), plan.info.dtype, (lattice.window_height, lattice.window_width))
        self._idle_since = time.perf_counter()

    def __call__(self, pixels: BlockPixels) -> BlockMask:
        """Predict a block."""
        waited = max(0.0, time.time() - pixels.started - pixels.seconds["read"])
        clock = time.perf_counter()
        arrays: dict[str, NDArray[np.uint8]] = {CLASS_MASK: np.zeros((0, 0), np.uint8)}
        idle = clock - self._idle_since
        seconds = {**pixels.seconds, "wait": waited, "idle": idle, **dict.fromkeys(DEVICE_SECONDS, 0.0)}
        windows, note, error = 0, "", pixels.error
        if pixels.valid.size:
            plan = self._scenes[pixels.scene]
            block = plan.grid[pixels.block]
            try:
                prediction = self._predictor.predict(
                    pixels.values, pixels.valid, plan.grid.tiling(block), kept=block.kept, wanted=pixels.wanted
                )
            except Exception as problem:
                # A GPU that has failed once fails for every block that follows, and none of them is to blame.
                if isinstance(problem, SegbatchError) or self._device != "cpu":
                    raise
                error = explain(problem, f"block {pixels.block} cannot be predicted")
            else:
                found = prediction.outputs
                arrays = {
                    name: array
                    for name, array in (
                        (CLASS_MASK, found.mask),
                        ("confidence", found.confidence),
                        ("probabilities", found.probabilities),
                    )
                    if array is not None
                }
                windows, note = prediction.windows, prediction.note
                seconds |= prediction.seconds
        self._idle_since = time.perf_counter()
        seconds["predict"] = self._idle_since - clock
        return BlockMask(
            pixels.scene, pixels.block, arrays, windows, pixels.started, seconds, error, note, resident_memory()
        )


class WriteStage:
    """Writes what is wanted of a block, compares it with the label, and then writes its ledger row.

    Args:
        scenes: The plan.
        writer: Writes a block's files.
        ledger: Folder of the ledger.
        label_map: From label values to class ids.
    """

    def __init__(self, scenes: Sequence[ScenePlan], writer: BlockWriter, ledger: str, label_map: LabelMap) -> None:
        self._scenes = scenes
        self._writer = writer
        self._ledger_folder = ledger
        self._ledger: LedgerWriter | None = None
        self._label_map = label_map
        self._created: set[str] = set()

    def __call__(self, predicted: BlockMask) -> LedgerRow:
        """Write a block; its row is in the ledger on return."""
        clock = time.perf_counter()
        plan = self._scenes[predicted.scene]
        try:
            if predicted.error is not None:
                raise SceneReadError(predicted.error)
            row = self._write(plan, predicted)
        except SceneReadError as problem:
            row = LedgerRow.failed(
                plan.id,
                predicted.block,
                str(problem),
                num_classes=self._label_map.num_classes,
                started=predicted.started,
            )
        row = replace(row, seconds={**predicted.seconds, "write": time.perf_counter() - clock})
        if self._ledger is None:
            self._ledger = LedgerWriter(self._ledger_folder)
        self._ledger.append(row)
        return row

    def __getstate__(self) -> dict[str, Any]:
        # Each process that gets a copy writes a ledger file of its own.
        return {**self.__dict__, "_ledger": None, "_created": set()}

    def _write(self, plan: ScenePlan, predicted: BlockMask) -> LedgerRow:
        owned = plan.grid[predicted.block].owned
        mask = predicted.arrays[CLASS_MASK]
        if not mask.size:
            mask = np.full((owned.height, owned.width), NODATA, np.uint8)
        label = None
        if plan.ref.label is not None:
            try:
                with small_cache(), LabelReader(plan.ref.label, self._label_map, plan.info) as reader:
                    label = reader.read(owned)
            except Exception as problem:  # it could be read when the run began
                raise SceneReadError(explain(problem, f"{plan.ref.label} cannot be read")) from problem
        if plan.id not in self._created:
            # Here and not before the run: of ten thousand small scenes it takes as long as all else that is written.
            try:
                self._writer.create(plan)
            except InputError as problem:  # another scene's
                raise SceneReadError(str(problem)) from problem
            self._created.add(plan.id)
        self._writer.write(plan, predicted.block, {**predicted.arrays, CLASS_MASK: mask})
        return LedgerRow.of(
            plan.id,
            predicted.block,
            mask,
            label,
            num_classes=self._label_map.num_classes,
            windows=predicted.windows,
            started=predicted.started,
            seconds=predicted.seconds,
            note=predicted.note,
            memory=predicted.memory,
        )


# Opening a remote file costs round trips, and GDAL keeps decoded blocks as long as a file is open. The cache
# is a thread's own since open scenes cannot be shared, and small since file handles are few.
_cache = threading.local()


def _open_cached(uri: str, nodata: float | None) -> SceneReader:
    readers: OrderedDict[tuple[str, float | None], SceneReader] = _cache.__dict__.setdefault("readers", OrderedDict())
    key = uri, nodata
    if key not in readers:
        readers[key] = open_scene(uri, nodata)
        if len(readers) > _OPEN_SCENES:
            readers.popitem(last=False)[1].close()
    readers.move_to_end(key)
    return readers[key]


def _forget(uri: str) -> None:
    readers = _cache.__dict__.get("readers", {})
    for key in [key for key in readers if key[0] == uri]:
        readers.pop(key).close()
