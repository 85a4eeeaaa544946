"""What a mapping did and where its time went: for run.json, and beside the bundle for the next plan."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from segbatch.commands.plan import Plan
from segbatch.commands.request import Request
from segbatch.commands.workers import Workers
from segbatch.inference.ledger import LedgerRow
from segbatch.inference.plan import ScenePlan
from segbatch.inference.settings import Settings
from segbatch.models.profile import PastRun, Profile, kind, read_profile, write_profile

_WORTH_REMEMBERING = 20.0
"""Seconds that the blocks of a run must have taken for it to tell how fast the next one will be."""


def account(
    scenes: Sequence[ScenePlan], rows: Mapping[tuple[str, int], LedgerRow], pending: np.ndarray, clock: dict[str, float]
) -> dict[str, Any]:
    """What the latest call did and where its time went, for run.json.

    Seconds: ``start_up`` until the model was ready for the first block; ``blocks`` from then (reading that
    block counted in) until the last was written; ``finish`` for the scenes' files; ``stages`` summed over
    blocks, which overlap.
    """
    done = [row for index, block in pending.tolist() if (row := rows.get((scenes[index].id, block))) is not None]
    places = {scene.id: scene for scene in scenes}
    first = min((row.started + row.seconds.get("wait", 0.0) for row in done), default=clock["blocks"])
    stages: dict[str, float] = {}
    for row in done:
        for stage, seconds in row.seconds.items():
            stages[stage] = stages.get(stage, 0.0) + seconds
    return {
        "blocks": len(done),
        "windows": sum(row.windows for row in done),
        "pixels_run": sum(_run_pixels(row, places[row.scene]) for row in done),
        "memory": max((row.memory for row in done), default=0),
        "pixels": sum(scenes[index].grid[block].owned.area for index, block in pending.tolist()),
        "seconds": {
            "start_up": round(first - clock["start"], 3),
            "blocks": round(clock["blocks"] - first, 3),
            "finish": round(clock["files"] - clock["blocks"], 3),
        },
        "stages": {stage: round(seconds, 3) for stage, seconds in stages.items()},
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


def _run_pixels(row: LedgerRow, scene: ScenePlan) -> int:
    return row.windows * _window(scene)


def _window(scene: ScenePlan) -> int:
    return scene.grid.lattice.window_width * scene.grid.lattice.window_height
