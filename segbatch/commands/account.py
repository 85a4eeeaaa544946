"""What a mapping did and where its time went, for run.json."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segbatch.inference.ledger import LedgerRow
from segbatch.inference.plan import ScenePlan


def account(
    scenes: Sequence[ScenePlan], rows: Mapping[tuple[str, int], LedgerRow], pending: np.ndarray, clock: dict[str, float]
) -> dict[str, Any]:
    """What the latest call did and where its time went, for run.json.

    Seconds: ``start_up`` until the model was ready for the first block; ``blocks`` from then (reading that
    block counted in) until the last was written; ``finish`` for the scenes' files; ``stages`` summed over
    blocks, which overlap.
    """
    done = [row for index, block in pending.tolist() if (row := rows.get((scenes[index].id, block))) is not None]
    first = min((row.started + row.seconds.get("wait", 0.0) for row in done), default=clock["blocks"])
    stages: dict[str, float] = {}
    for row in done:
        for stage, seconds in row.seconds.items():
            stages[stage] = stages.get(stage, 0.0) + seconds
    return {
        "blocks": len(done),
        "windows": sum(row.windows for row in done),
        "pixels": sum(scenes[index].grid[block].owned.area for index, block in pending.tolist()),
        "seconds": {
            "start_up": round(first - clock["start"], 3),
            "blocks": round(clock["blocks"] - first, 3),
            "finish": round(clock["files"] - clock["blocks"], 3),
        },
        "stages": {stage: round(seconds, 3) for stage, seconds in stages.items()},
    }
