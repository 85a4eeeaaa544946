"""The stages of mapping, as plain callables that know nothing of Ray: read, predict, write.

The engines string them together. A scene that cannot be read yields a block with an error, which the
later stages pass on into the ledger: one bad scene never takes a run down.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segbatch.classes import NODATA, LabelMap
from segbatch.errors import InputError, SceneReadError, SegbatchError
from segbatch.inference.ledger import LedgerRow, LedgerWriter
from segbatch.inference.plan import ScenePlan
from segbatch.masks import write_block
from segbatch.scenes import LabelReader, SceneReader, open_scene
from segbatch.scenes.raster import small_cache
from segbatch.scenes.scene import read_padded

if TYPE_CHECKING:
    from segbatch.inference.predictor import Prediction

_OPEN_SCENES = 4


@dataclass(frozen=True, slots=True, eq=False)
class BlockPixels:
    """A block as read, halo included.

    Args:
        scene: Index of the scene in the plan.
        block: Number of the block in the scene's grid.
        values: (bands, height, width) as stored; empty where there is nothing to predict.
        valid: (height, width) bool, True = a real pixel; likewise.
        started: When reading began, in seconds since the epoch.
        seconds: By stage.
        error: Why the block could not be read, or None.
    """

    scene: int
    block: int
    values: NDArray[Any]
    valid: NDArray[np.bool_]
    started: float
    seconds: dict[str, float] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class BlockMask:
    """A block as predicted.

    Args:
        scene: Index of the scene in the plan.
        block: Number of the block in the scene's grid.
        mask: (height, width) uint8 class ids of the pixels that the block owns; empty where none is valid.
        windows: Windows run through the model.
        started: When reading began, in seconds since the epoch.
        seconds: By stage.
        error: Why the block failed, or None.
    """

    scene: int
    block: int
    mask: NDArray[np.uint8]
    windows: int
    started: float
    seconds: dict[str, float]
    error: str | None = None


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
        nothing = np.zeros((len(plan.bands), 0, 0), plan.info.dtype), np.zeros((0, 0), bool)
        error = None
        try:
            with small_cache():
                reader = _open_cached(plan.info.uri, plan.info.nodata)
                values, valid = read_padded(reader, plan.grid[block].read, plan.bands)
        except SegbatchError as problem:
            _forget(plan.info.uri)
            (values, valid), error = nothing, str(problem)
        halo = plan.grid.lattice.halo
        if error is None and not valid[halo : valid.shape[0] - halo, halo : valid.shape[1] - halo].any():
            values, valid = nothing
        return BlockPixels(scene, block, values, valid, started, {"read": time.perf_counter() - clock}, error)


class PredictStage:
    """Holds the model and turns pixels into class masks.

    Args:
        scenes: The plan.
        bundle: Folder of the bundle.
        batch_size: Windows a forward pass.
        threads: Torch threads, or None to leave them as they are.
        device: Where the model runs.
    """

    def __init__(
        self, scenes: Sequence[ScenePlan], bundle: str, batch_size: int, threads: int | None, device: str
    ) -> None:
        # Reading and writing workers import this module too, and torch would cost them seconds.
        import torch

        from segbatch.inference.predictor import Predictor
        from segbatch.models.bundle import load_bundle

        # Ten bits less of a convolution would change class masks from one kind of GPU to another.
        torch.backends.cudnn.allow_tf32 = False
        if threads is not None:
            torch.set_num_threads(threads)
        self._scenes = scenes
        self._batch_size = batch_size
        loaded = load_bundle(bundle)
        self._predictor = Predictor(
            loaded.model, loaded.card.mean, loaded.card.std, batch_size=batch_size, device=device
        )

    def __call__(self, pixels: BlockPixels) -> BlockMask:
        """Predict a block."""
        waited = max(0.0, time.time() - pixels.started - pixels.seconds["read"])
        clock = time.perf_counter()
        mask, windows, forward = np.zeros((0, 0), np.uint8), 0, 0.0
        if pixels.valid.size:
            plan = self._scenes[pixels.scene]
            owned = plan.grid[pixels.block].owned
            prediction = self._predict(pixels, plan)
            # A copy lets go of the whole cores' array, of which border blocks own a part only.
            mask = np.ascontiguousarray(prediction.mask[: owned.height, : owned.width])
            windows, forward = prediction.windows, prediction.forward_seconds
        seconds = {
            **pixels.seconds,
            "wait": waited,
            "predict": time.perf_counter() - clock,
            "forward": forward,
        }
        return BlockMask(pixels.scene, pixels.block, mask, windows, pixels.started, seconds, pixels.error)

    def _predict(self, pixels: BlockPixels, plan: ScenePlan) -> "Prediction":
        import torch

        lattice = plan.grid.lattice
        try:
            return self._predictor.predict(pixels.values, pixels.valid, core=plan.core, halo=lattice.halo)
        except torch.OutOfMemoryError as error:
            raise SegbatchError(
                f"The GPU's memory does not hold a batch of {self._batch_size} windows of {lattice.window_height} x "
                f"{lattice.window_width} pixels: lower the batch size or the core."
            ) from error


class WriteStage:
    """Writes a block's shard, compares it with the label, and then writes its ledger row.

    Args:
        scenes: The plan.
        masks: Folder of the Zarr stores.
        ledger: Folder of the ledger.
        label_map: From label values to class ids.
    """

    def __init__(self, scenes: Sequence[ScenePlan], masks: str, ledger: str, label_map: LabelMap) -> None:
        self._scenes = scenes
        self._masks = Path(masks)
        self._ledger_folder = ledger
        self._ledger: LedgerWriter | None = None
        self._label_map = label_map

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
        return {**self.__dict__, "_ledger": None}

    def _write(self, plan: ScenePlan, predicted: BlockMask) -> LedgerRow:
        owned = plan.grid[predicted.block].owned
        mask = predicted.mask
        if not mask.size:
            mask = np.full((owned.height, owned.width), NODATA, np.uint8)
        label = None
        if plan.ref.label is not None:
            try:
                with small_cache(), LabelReader(plan.ref.label, self._label_map) as reader:
                    label = reader.read(owned)
            except InputError as problem:  # it was there when the run began
                raise SceneReadError(str(problem)) from problem
        write_block(self._masks / f"{plan.id}.zarr", owned, mask)
        return LedgerRow.of(
            plan.id,
            predicted.block,
            mask,
            label,
            num_classes=self._label_map.num_classes,
            windows=predicted.windows,
            started=predicted.started,
            seconds=predicted.seconds,
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
