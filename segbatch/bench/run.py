"""How much of the model's own speed the pipeline keeps, measured in one run on one machine."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segbatch.bench.bare import Bare, Best, bare_forward, best_forward
from segbatch.bench.mapping import Mapped, Reading, Settled, map_scene, read_again, settle
from segbatch.bench.material import Material, cores
from segbatch.bench.processes import alone
from segbatch.bench.show import figure, megabytes, print_table

_STAGES = "read", "wait", "upload", "forward", "download", "write"


@dataclass(frozen=True, slots=True)
class RunResult:
    """The pipeline against the model's forward passes alone.

    Args:
        name: Of the model.
        scene: Path of the image.
        engine: ``ray`` or ``inline``.
        settled: What both used.
        before: Forward passes alone, before the pipeline ran.
        after: The same afterwards: a machine that others use too is not always as fast.
        best: The fastest way found to do the forward passes.
        mapped: The pipeline.
        reading: What it read.
        price_per_hour: Of the machine; None where it was not told.
    """

    name: str
    scene: str
    engine: str
    settled: Settled
    before: Bare
    after: Bare
    best: Best
    mapped: Mapped
    reading: Reading
    price_per_hour: float | None

    @property
    def bare_mpx_per_second(self) -> float:
        """Million kept pixels a second of the forward passes alone."""
        seconds = math.fsum((self.before.seconds, self.after.seconds)) / 2
        return self.mapped.pixels / seconds * self.before.devices / 1e6

    @property
    def best_mpx_per_second(self) -> float:
        """Of the fastest forward passes found, those of the run's own windows among them."""
        return max(self.best.mpx_per_second, self.bare_mpx_per_second)

    @property
    def efficiency(self) -> float:
        """Of the pipeline, against the same forward passes alone."""
        return self.mapped.mpx_per_second / self.bare_mpx_per_second

    @property
    def best_efficiency(self) -> float:
        """Of the pipeline, against the best forward passes that were found."""
        return self.mapped.mpx_per_second / self.best_mpx_per_second

    @property
    def km2_per_hour(self) -> float | None:
        """Mapped area of valid pixels an hour; None without a map."""
        return None if self.mapped.km2 is None else self.mapped.km2 / self.mapped.seconds * 3600

    @property
    def cost_per_1000_km2(self) -> float | None:
        """In the currency of the price; None without a price or a map."""
        if self.price_per_hour is None or not self.km2_per_hour:
            return None
        return self.price_per_hour / self.km2_per_hour * 1000

    def to_json(self) -> dict[str, Any]:
        """As plain data, with what follows from it."""
        derived = {
            "bare_mpx_per_second": self.bare_mpx_per_second,
            "best_mpx_per_second": self.best_mpx_per_second,
            "pipeline_mpx_per_second": self.mapped.mpx_per_second,
            "efficiency": self.efficiency,
            "best_efficiency": self.best_efficiency,
            "tail": self.mapped.tail,
            "waste": self.mapped.pixels_run / self.mapped.pixels,
            "forwards_per_window": self.mapped.windows / max(1, self.before.windows),
            "read_amplification": self.reading.amplification,
            "km2_per_hour": self.km2_per_hour,
            "cost_per_1000_km2": self.cost_per_1000_km2,
        }
        return {**asdict(self), **derived}


def measure_run(
    material: Material, folder: Path, inference: dict[str, Any], price_per_hour: float | None = None
) -> RunResult:
    """Forward passes alone, the pipeline, forward passes alone once more; then what else there is to know.

    Args:
        material: Model and scene.
        folder: Where the run's files go.
        inference: Settings of the inference section.
        price_per_hour: Of the machine.
    """
    request = material.request(folder / "run", **inference)
    settled = settle(request)
    before = alone(bare_forward, request, settled)
    mapped = map_scene(request, settled)
    after = alone(bare_forward, request, settled)
    return RunResult(
        name=material.name,
        scene=material.scene,
        engine=request.inference.engine,
        settled=settled,
        before=before,
        after=after,
        best=alone(best_forward, request, settled),
        mapped=mapped,
        reading=read_again(request, settled),
        price_per_hour=price_per_hour,
    )


def print_runs(results: Sequence[RunResult]) -> None:
    """The figures, a column for each model."""
    first = results[0]
    title = f"{Path(first.scene).name}, engine {first.engine}, {cores()} cores, {first.settled.device}"
    columns = [_column(result) for result in results]
    rows = [[lines[0][0], *(cell for _, cell in lines)] for lines in zip(*columns, strict=True)]
    print_table(title, ["", *(result.name for result in results)], rows)


def _column(result: RunResult) -> list[tuple[str, str]]:
    mapped, best, choice = result.mapped, result.best, result.settled.choice
    seconds = mapped.stages
    drift = abs(result.before.seconds - result.after.seconds) / (result.before.seconds + result.after.seconds)
    own = best.mpx_per_second <= result.bare_mpx_per_second
    memory = {kind: mapped.memory.get(kind) for kind in ("driver", "predicting actor", "reader", "writer")}
    return [
        ("kept pixels", f"{mapped.pixels / 1e6:.1f} Mpx"),
        ("model run by", f"{result.settled.backend}, halo {choice['halo']}"),
        ("forward alone", f"{result.bare_mpx_per_second:.3f} Mpx/s ± {drift:.1%}"),
        ("best forward found", f"{result.best_mpx_per_second:.3f} Mpx/s"),
        ("  with core, batch", "the run's own" if own else f"{best.core[0]} x {best.core[1]}, {best.batch}"),
        ("pipeline", f"{mapped.mpx_per_second:.3f} Mpx/s"),
        ("efficiency", figure(result.efficiency, ".3f")),
        ("  against the best", figure(result.best_efficiency, ".3f")),
        ("start-up", figure(mapped.start_up, ".1f", "s")),
        ("first block to last file", figure(mapped.seconds, ".1f", "s")),
        *((f"  {stage}", figure(seconds.get(stage), ".1f", "s")) for stage in _STAGES),
        ("  finish", figure(mapped.finish_seconds, ".1f", "s")),
        ("tail (finish / all)", f"{mapped.tail:.1%}"),
        ("forwards / unique windows", f"{mapped.windows / max(1, result.before.windows):.2f}"),
        ("waste (run / kept pixels)", f"{mapped.pixels_run / mapped.pixels:.3f}"),
        ("bytes read / stored", figure(result.reading.amplification, ".2f")),
        ("through the object store", megabytes(mapped.store_bytes)),
        ("spilled to disk", megabytes(mapped.spilled_bytes)),
        *((f"peak memory, {kind}", megabytes(peak)) for kind, peak in memory.items()),
        ("area", figure(result.km2_per_hour, ",.1f", "km2/h")),
        ("cost of 1,000 km2", figure(result.cost_per_1000_km2, ",.2f")),
    ]
