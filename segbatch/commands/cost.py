"""What a run costs: estimated before it, and afterwards by what it has taken."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from segbatch.commands.folder import RunFolder
from segbatch.commands.progress import counted
from segbatch.commands.record import SceneRecord
from segbatch.commands.usage import Usage, read_usage
from segbatch.config import Prices, parse_section

_KM2 = 1000.0
"""What a price for an area is told of."""


def find_prices(config: Mapping[str, Any]) -> Prices | None:
    """The price table of a resolved configuration as plain data; None where it has none.

    Raises:
        InputError: It is not a price table.
    """
    found = (config.get("cluster") or {}).get("prices")
    return None if found is None else parse_section(Prices, found, "cluster.prices")


def amount(prices: Prices, usage: Usage) -> float | None:
    """What a usage costs; None where there is a GPU among it that has no price."""
    if unpriced(prices, usage):
        return None
    gpus = (hours * (_gpu_price(prices, name) or 0.0) for name, hours in usage.gpu_hours.items())
    return (
        usage.cpu_hours * (prices.cpu_hour or 0.0) + usage.node_hours * (prices.node_hour or 0.0) + sum(gpus)
    )  # fmt: skip


def unpriced(prices: Prices, usage: Usage) -> list[str]:
    """Kinds of GPUs that the table should name and does not."""
    return [name for name, hours in usage.gpu_hours.items() if hours and _gpu_price(prices, name) is None]


def cost_document(prices: Prices, steps: Mapping[str, Usage], areas: Sequence[float | None]) -> dict[str, Any]:
    """All that is told of a run's costs, as plain data.

    Args:
        prices: The table.
        steps: What the run has taken, by step.
        areas: Square kilometres of each scene that was mapped; None of scenes that lie nowhere.
    """
    whole = sum(steps.values(), Usage())
    known = [area for area in areas if area is not None]
    km2 = sum(known) if known and len(known) == len(areas) else None
    mapping = amount(prices, steps["mapping"]) if "mapping" in steps else None
    return {
        "currency": prices.currency,
        "total": amount(prices, whole),
        "steps": {step: amount(prices, usage) for step, usage in steps.items()},
        "per_1000_km2": mapping / km2 * _KM2 if mapping is not None and km2 else None,
        "per_scene": mapping / len(areas) if mapping is not None and areas else None,
        "km2": km2,
        "scenes": len(areas),
        "calls": whole.calls,
        "hours": whole.hours,
        "node_hours": whole.node_hours,
        "cpu_hours": whole.cpu_hours,
        "gpu_hours": dict(whole.gpu_hours),
        "unpriced": unpriced(prices, whole),
    }


def run_cost(folder: RunFolder, scenes: Iterable[SceneRecord] = ()) -> dict[str, Any] | None:
    """What a run has cost so far; None without prices, or where it has taken nothing.

    Args:
        folder: The run's.
        scenes: Those that were mapped.
    """
    prices, steps = find_prices(folder.read().get("config") or {}), read_usage(folder)
    if prices is None or not steps:
        return None
    return cost_document(prices, steps, [scene.km2 for scene in scenes])


def cost_facts(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, value) lines for people, of what `cost_document` gives."""
    currency, steps = document["currency"], document["steps"]
    if document["total"] is None:
        text = f"not known: cluster.prices.gpu_hour has no {', '.join(document['unpriced'])}"
    else:
        text = money(document["total"], currency)
        others = [f"{money(steps[step], currency)} of it {step}" for step in ("training", "tuning") if step in steps]
        text += "".join(f", {other}" for other in others if len(steps) > 1)
        each = for_each(document)
        text += f"; {'mapping ' if others else ''}{each}" if each else ""
    calls = f", in {counted(document['calls'], 'call')}" if document["calls"] > 1 else ""
    return [("cost", text), ("resources held", f"{_hours(document)}{calls}")]


def for_each(document: Mapping[str, Any]) -> str:
    """What mapping costs by area, or where scenes lie nowhere by scene; empty where that is not known."""
    if document["per_1000_km2"] is not None:
        return f"{money(document['per_1000_km2'], document['currency'])} for 1,000 km2"
    if document["per_scene"] is not None:
        return f"{money(document['per_scene'], document['currency'])} a scene"
    return ""


def estimate(prices: Prices, usage: Usage, areas: Sequence[float | None]) -> str:
    """What mapping would cost, in a line.

    Args:
        prices: The table.
        usage: What it would take.
        areas: See `cost_document`.
    """
    document = cost_document(prices, {"mapping": usage}, areas)
    return f"about {money(document['total'], prices.currency)}, {for_each(document)}: {_hours(document)}"


def money(value: float, currency: str) -> str:
    """An amount for people: small ones with two digits that count."""
    if value == 0 or value >= 1:
        return f"{value:,.2f} {currency}"
    decimals = 2
    while decimals < 9 and round(value, decimals) * 10 ** (decimals - 1) < 1:
        decimals += 1
    return f"{value:.{decimals}f} {currency}"


def _gpu_price(prices: Prices, name: str) -> float | None:
    """Of an hour of such a GPU: 0 where GPUs are not paid by themselves, None where the table lacks it."""
    if not isinstance(prices.gpu_hour, dict):
        return prices.gpu_hour or 0.0
    folded = {kind.casefold(): price for kind, price in prices.gpu_hour.items()}
    return folded.get(name.casefold())


def _hours(document: Mapping[str, Any]) -> str:
    """The resources, for people: 1.25 CPU hours, 0.31 H100 hours, 0.63 node hours."""
    held = {"CPU": document["cpu_hours"], **document["gpu_hours"], "node": document["node_hours"]}
    return ", ".join(f"{hours:,.3g} {name} hours" for name, hours in held.items() if hours)
