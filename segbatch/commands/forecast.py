"""What mapping would take: work, bytes, memory and, where the bundle was measured on this machine, time."""

from dataclasses import dataclass

from segbatch.commands.account import run_kind
from segbatch.commands.choose import taken_bytes
from segbatch.commands.cost import estimate, find_prices
from segbatch.commands.plan import Plan, sizes
from segbatch.commands.progress import duration
from segbatch.commands.record import scene_km2
from segbatch.commands.request import Request
from segbatch.commands.usage import Usage
from segbatch.commands.workers import Workers, planned_workers, this_machine
from segbatch.inference.plan import Costs, costs
from segbatch.inference.tuning import seconds_for
from segbatch.models.profile import PastRun, kind, read_profile

Lines = list[tuple[str, str]]

_USUAL_EFFICIENCY = 0.92
"""Of the bare forward's speed, where no run has told yet."""

_USUAL_START_UP = {"ray": 18.0, "inline": 6.0}
"""Seconds from the command to the first block."""

_ACTOR_BYTES = 0.7e9
"""Of a predicting process with its model, before the first window."""

_PROCESS_BYTES = 0.15e9
"""Of a process that reads or writes, before the first block."""

_READER_COPIES = 1.5
"""What a reading process holds of a block, times its size in memory."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What mapping would take.

    Args:
        costs: Work and bytes, if every pixel is valid.
        actor_bytes: Memory of a predicting process.
        reader_bytes: Memory of a process that reads.
        seconds: From the command to the last file; None where nothing was measured on this machine yet.
        basis: What the seconds go by; empty where there are none.
    """

    costs: Costs
    actor_bytes: float
    reader_bytes: float
    seconds: float | None
    basis: str = ""


def forecast(request: Request, planned: Plan) -> Forecast:
    """What mapping would take on this machine."""
    what = costs(planned.scenes, planned.choice.settings.views)
    workers = planned_workers(request, sizes(planned.scenes))
    seconds, basis = _time(request, planned, what, workers)
    return Forecast(
        costs=what,
        actor_bytes=_actor_bytes(request, planned, what, workers),
        reader_bytes=_PROCESS_BYTES + _READER_COPIES * what.block_bytes,
        seconds=seconds,
        basis=basis,
    )


def plan_lines(request: Request, planned: Plan) -> Lines:
    """(name, value) lines that say what mapping would take."""
    scenes, choice = planned.scenes, planned.choice
    expected = forecast(request, planned)
    what = expected.costs
    cores = sorted({scene.core for scene in scenes})
    return [
        ("bundle", f"{request.bundle}{'' if request.card is None else ', not trained yet'}"),
        ("scenes", str(len(scenes))),
        ("pixels", f"{what.pixels / 1e6:,.1f} million"),
        ("cores", ", ".join(f"{rows} x {cols}" for rows, cols in cores[:4]) + (", ..." if len(cores) > 4 else "")),
        ("halo", f"{choice.halo} px{_halo_reason(request, planned)}"),
        ("blocks", f"{what.blocks:,} (one task and one shard each)"),
        ("windows", f"{what.windows:,}, fewer where blocks have no valid pixel"),
        ("forwards", f"{what.windows / max(1, what.unique_windows):.2f} runs of the model for each window"),
        ("waste", f"{what.waste:.2f} pixels run for each pixel kept"),
        ("bytes read", f"{_bytes(what.bytes_read)} decoded, {what.bytes_read / max(1, what.bytes_stored):.2f} times "
                       "what there is"),
        ("largest block", f"{_bytes(what.block_bytes)} in memory"),
        ("model input", f"{choice.settings.batch_size} x {what.window_pixels / 1e6:.2f} Mpx at a time"),
        ("model run by", f"{choice.settings.backend} in {choice.settings.precision}"),
        ("class masks", f"{_bytes(what.pixels)} before compression"),
        ("peak memory", f"about {_bytes(round(expected.actor_bytes))} a predicting process, "
                        f"{_bytes(round(expected.reader_bytes))} a reading one"),
        ("time", _time_line(expected)),
        *_cost_lines(request, planned, expected),
    ]  # fmt: skip


def _halo_reason(request: Request, planned: Plan) -> str:
    """What the halo costs and why it is that large."""
    curve = planned.card.halo_curve
    if not any(scene.grid.lattice.border for scene in planned.scenes):
        return ", not used: a window sees the whole scene"
    if curve is None:
        return " (the bundle has no measured curve: segbatch calibrate makes one)"
    expected = max(curve.expected(planned.choice.halo, scene.grid.lattice.border) for scene in planned.scenes)
    if not expected:
        return ": no pixel differed from a prediction of the whole image where that was measured"
    return f": about {expected:.2g} of pixels differ from a prediction of the whole image"


def _past_run(request: Request, planned: Plan, workers: Workers) -> PastRun | None:
    profile = read_profile(request.bundle, workers.device)
    return profile.runs.get(run_kind(request.inference.engine, planned.choice.settings)) if profile else None


def _actor_bytes(request: Request, planned: Plan, what: Costs, workers: Workers) -> float:
    pixels = what.window_pixels * planned.choice.settings.batch_size
    past = _past_run(request, planned, workers)
    if past is not None:
        # Of what a past run held, the model's own share stays and the windows' grows with them.
        return _ACTOR_BYTES + max(0.0, past.actor_bytes - _ACTOR_BYTES) * pixels / past.window_pixels
    profile = read_profile(request.bundle, workers.device)
    return _ACTOR_BYTES + taken_bytes(request, planned.card, profile, pixels)


def _time(request: Request, planned: Plan, what: Costs, workers: Workers) -> tuple[float | None, str]:
    """Seconds, and what they go by."""
    profile, settings = read_profile(request.bundle, workers.device), planned.choice.settings
    past = _past_run(request, planned, workers)
    shared = what.pixels_run / min(workers.count, max(1, what.blocks))
    if past is not None:
        return past.start_up + shared / past.mpx_per_second / 1e6, "by an earlier run"
    if profile is not None and (speed := profile.speeds.get(kind(settings.backend, settings.precision))):
        seconds = _USUAL_START_UP[request.inference.engine] + seconds_for(speed, shared) / _USUAL_EFFICIENCY
        return seconds, "by the model's measured speed"
    return None, ""


def _time_line(expected: Forecast) -> str:
    if expected.seconds is None:
        return "not known yet: the first run of some minutes on this machine measures it"
    return f"{duration(expected.seconds)} on this machine ({expected.basis}), if every pixel is valid"


def _cost_lines(request: Request, planned: Plan, expected: Forecast) -> Lines:
    """What this machine costs in that time; nothing without prices. No GPU is among it, as none is in the time."""
    prices = find_prices(request.config)
    if prices is None:
        return []
    if not (prices.cpu_hour or prices.node_hour):
        why = "cluster.prices has no cpu_hour or node_hour, and what GPUs would take is not estimated here"
        return [("cost", f"not known: {why}")]
    if expected.seconds is None:
        return [("cost", "not known yet, as the time is not")]
    areas = [scene_km2(scene.info, scene.area) for scene in planned.scenes]
    return [("cost", estimate(prices, Usage.of(this_machine(), expected.seconds), areas))]


def _bytes(count: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"
