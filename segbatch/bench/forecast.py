"""What `plan` foretells, against what the run then does and takes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segbatch.bench.mapping import Mapped, Reading, Settled, lay_out, map_scene, read_again, settle
from segbatch.bench.material import Material, cores
from segbatch.bench.processes import DRIVER, alone
from segbatch.bench.show import print_table
from segbatch.commands.forecast import Forecast, forecast
from segbatch.commands.request import Request
from segbatch.inference.probe import Probe, run_probe
from segbatch.inference.samples import Source


@dataclass(frozen=True, slots=True)
class ForecastLine:
    """A figure before and after.

    Args:
        name: What it is.
        unit: Its unit.
        predicted: By the plan; None where it does not know yet.
        measured: In the run; None where that cannot be told.
    """

    name: str
    unit: str
    predicted: float | None
    measured: float | None

    @property
    def ratio(self) -> float | None:
        """Measured over predicted."""
        return self.measured / self.predicted if self.predicted and self.measured is not None else None


def compare_forecast(material: Material, folder: Path, engine: str) -> list[ForecastLine]:
    """Plan, run, compare.

    The model is measured before, as a long run does by itself: `plan` does not tell the time of what it does not know.

    Args:
        material: Model and scene.
        folder: Where the run's files go.
        engine: ``ray`` or ``inline``.
    """
    request = material.request(folder / "run", engine=engine)
    settled = settle(request)
    alone(_learn, request, settled)
    expected = alone(_forecast, request, settled)
    mapped = map_scene(request, settled)
    return _lines(expected, mapped, read_again(request, settled))


def _learn(request: Request, settled: Settled) -> None:
    """Leave the speed of what the run uses beside the bundle."""
    planned = lay_out(request, settled)
    backend, precision = settled.backend.split("/")
    probe = Probe(
        bundle=str(request.bundle.absolute()),
        device_name=settled.device,
        use_gpu=settled.use_gpu,
        threads=None if settled.use_gpu else cores(),
        sources=tuple(
            Source(scene.info.uri, scene.info.nodata, scene.bands, scene.info.window) for scene in planned.scenes
        ),
        pixels=math.inf,
        backend=backend,
        precision=precision,
    )
    run_probe(probe)


def _forecast(request: Request, settled: Settled) -> Forecast:
    return forecast(request, lay_out(request, settled))


def _lines(expected: Forecast, mapped: Mapped, reading: Reading) -> list[ForecastLine]:
    what, stored = expected.costs, reading.stored_bytes
    # The plan knows pixels as they are in memory; the same share of the file is read.
    file_bytes = None if stored is None else stored * what.bytes_read / max(1, what.bytes_stored)
    actor = mapped.memory.get("predicting actor", mapped.memory.get(DRIVER))
    return [
        ForecastLine("blocks", "", what.blocks, mapped.blocks),
        ForecastLine("forwards", "", what.windows, mapped.windows),
        ForecastLine("pixels run", "Mpx", what.pixels_run / 1e6, mapped.pixels_run / 1e6),
        ForecastLine("bytes read from the file", "MB", _mb(file_bytes), _mb(reading.file_bytes)),
        ForecastLine("memory of a predicting process", "MB", _mb(expected.actor_bytes), _mb(actor)),
        ForecastLine("memory of a reading process", "MB", _mb(expected.reader_bytes), _mb(mapped.memory.get("reader"))),
        ForecastLine("time", "s", expected.seconds, mapped.start_up + mapped.seconds),
    ]


def _mb(count: float | None) -> float | None:
    return None if count is None else count / 1e6


def print_forecast(material: Material, lines: Sequence[ForecastLine]) -> None:
    """A line for each figure."""
    print_table(
        f"{material.name}, {Path(material.scene).name}, {cores()} cores",
        ["", "predicted", "measured", "measured / predicted"],
        [[line.name, *(_cell(value, line.unit) for value in (line.predicted, line.measured)), _share(line.ratio)]
         for line in lines],
    )  # fmt: skip


def _cell(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:,.0f} {unit}".rstrip()


def _share(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"
