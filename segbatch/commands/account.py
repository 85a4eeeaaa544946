"""What a mapping did and where its time went: for run.json, and beside the bundle for the next plan."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from segbatch.commands.plan import Plan
from segbatch.commands.request import Request
from segbatch.commands.workers import Workers
from segbatch.inference.ledger import LedgerRow
from segbatch.inference.plan import ScenePlan
from segbatch.inference.settings import Settings
from segbatch.models.profile import PastRun, Profile, kind, read_profile, write_profile

_WORTH_REMEMBERING = 20.0
"""Seconds that the blocks of a run must have taken for it to tell how fast the next one will be."""


class Account:
    """Adds up what a call does and where its time goes, for run.json.

    Args:
        scenes: The plan.
    """

    def __init__(self, scenes: Sequence[ScenePlan]) -> None:
        self._places = {scene.id: scene for scene in scenes}
        self._blocks = self._windows = self._pixels_run = self._pixels = self._memory = 0
        self._first = math.inf
        self._stages: dict[str, float] = {}

    def add(self, row: LedgerRow) -> None:
        """A block is done."""
        scene = self._places[row.scene]
        self._blocks += 1
        self._windows += row.windows
        self._pixels_run += row.windows * _window(scene)
        self._pixels += scene.grid[row.block].owned.area
        self._memory = max(self._memory, row.memory)
        self._first = min(self._first, row.started + row.seconds.get("wait", 0.0))
        for stage, seconds in row.seconds.items():
            self._stages[stage] = self._stages.get(stage, 0.0) + seconds

    def summary(self, clock: Mapping[str, float]) -> dict[str, Any]:
        """What was done.

        Seconds: ``start_up`` until the model was ready for the first block; ``blocks`` from then (reading that
        block counted in) until the last was written; ``finish`` for the scenes' files; ``stages`` summed over
        blocks, which overlap.

        Args:
            clock: When the call started, the last block was done and the last file, in seconds since the epoch.
        """
        first = self._first if self._blocks else clock["blocks"]
        return {
            "blocks": self._blocks,
            "windows": self._windows,
            "pixels_run": self._pixels_run,
            "memory": self._memory,
            "pixels": self._pixels,
            "seconds": {
                "start_up": round(first - clock["start"], 3),
                "blocks": round(clock["blocks"] - first, 3),
                "finish": round(clock["files"] - clock["blocks"], 3),
            },
            "stages": {stage: round(seconds, 3) for stage, seconds in self._stages.items()},
        }


def remember(request: Request, planned: Plan, workers: Workers, last: Mapping[str, Any]) -> None:
    """Keep beside the bundle how fast a run was, for the plan of the next one."""
    seconds = last["seconds"]["blocks"] + last["seconds"]["finish"]
    if seconds < _WORTH_REMEMBERING or not last["pixels_run"]:
        return
    settings = planned.choice.settings
    profile = read_profile(request.bundle, workers.device) or Profile(workers.device, 0.0)
    run = PastRun(
        mpx_per_second=last["pixels_run"] / seconds / min(workers.count, last["blocks"]) / 1e6,
        start_up=last["seconds"]["start_up"],
        actor_bytes=last["memory"],
        window_pixels=max(_window(scene) for scene in planned.scenes) * settings.batch_size,
    )
    name = run_kind(request.inference.engine, settings)
    write_profile(request.bundle, replace(profile, runs={**profile.runs, name: run}))


def run_kind(engine: str, settings: Settings) -> str:
    """The key of runs that take alike long for a pixel of a window."""
    more = [settings.blend, settings.tta, *settings.products]
    return "/".join([engine, kind(settings.backend, settings.precision), *more])


def _window(scene: ScenePlan) -> int:
    return scene.grid.lattice.window_width * scene.grid.lattice.window_height
