"""Blocks that tell on which nodes of a cluster they were read and predicted: for `test_unlike_nodes`, which runs it."""

import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import ray

from segbatch.bench.scale import _NoFiles, simulated_scene
from segbatch.classes import LabelMap
from segbatch.commands.workers import pool_for
from segbatch.config import Inference
from segbatch.demo import CLASSES
from segbatch.inference.pipeline import run_ray
from segbatch.inference.pool import MOST_CORES, bound_blocks
from segbatch.inference.rows import SECONDS
from segbatch.inference.settings import Settings
from segbatch.inference.stages import BlockMask, BlockPixels, PredictStage, ReadStage
from segbatch.inference.work import Work
from segbatch.masks import CLASS_MASK
from segbatch.runtime import ray_session

BLOCKS = 120


def here() -> str:
    return ray.get_runtime_context().get_node_id()


@dataclass(frozen=True, slots=True, eq=False)
class TellingWork(Work):
    """Blocks of which nobody has the pixels.

    Args:
        nodes: Ids of the cluster's nodes.
    """

    nodes: tuple[str, ...] = ()

    def reader(self) -> ReadStage:
        def read(scene: int, block: int) -> BlockPixels:
            time.sleep(0.05)
            values = np.full((1, 8, 8), self.nodes.index(here()), np.uint8)
            return BlockPixels(scene, block, values, np.ones((8, 8), bool), None, time.time(), {"read": 0.0})

        return cast(ReadStage, read)

    def predictor(self, threads: int | None, device: str) -> PredictStage:
        def predict(pixels: BlockPixels) -> BlockMask:
            time.sleep(0.05)
            mask = {CLASS_MASK: np.zeros((8, 8), np.uint8)}
            note = json.dumps([self.nodes[int(pixels.values[0, 0, 0])], here(), device])
            seconds = dict.fromkeys(SECONDS, 0.0)
            return BlockMask(pixels.scene, pixels.block, mask, 1, pixels.started, seconds, note=note)

        return cast(PredictStage, predict)


def main(address: str, accelerator: str) -> None:
    inference = Inference.model_validate({"actors": {"accelerator": accelerator}, "use_gpu": True})
    with ray_session(address) as found, tempfile.TemporaryDirectory() as ledger:
        resources = found.with_gpus_of(accelerator)
        plan = simulated_scene(BLOCKS)
        blocks = len(plan.grid)
        work = TellingWork(
            scenes=(plan,),
            pending=np.array([(0, block) for block in range(blocks)], np.int64),
            bundle="",
            files=_NoFiles(Path(ledger), (), "mode", CLASSES),
            ledger=ledger,
            label_map=LabelMap(len(CLASSES)),
            settings=Settings(),
            nodes=tuple(node["NodeID"] for node in ray.nodes()),
        )
        pool = pool_for(inference, resources, resources.wants_gpu(True), MOST_CORES, blocks)
        bounds = bound_blocks(
            cpus=resources.cpus,
            gpus=resources.gpus,
            store_bytes=resources.store_bytes,
            block_bytes=2**26,
            pool=pool,
            blocks=blocks,
        )
        notes = [json.loads(row.note) for row in run_ray(work, pool, bounds)]
        names = {node["NodeID"]: sorted(node["Resources"]) for node in ray.nodes()}
    rows = [(names[read], names[predicted], device) for read, predicted, device in notes]
    print("FOUND", json.dumps([pool.max, blocks, rows]))  # noqa: T201


main(*sys.argv[1:])
