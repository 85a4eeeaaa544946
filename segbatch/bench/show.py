"""Figures as tables of 80 columns and as JSON."""

import json
import math
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from segbatch import __version__
from segbatch.bench.material import cores
from segbatch.commands.progress import out
from segbatch.models.profile import cpu_name

_WIDTH = 80


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> None:
    """Print a table; the first columns are names, the others are figures."""
    # Not as rich's title of the table, which is wrapped at the width of the figures.
    out.print(title, markup=False, width=_WIDTH)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if number < names else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    out.print(table, width=_WIDTH)


def write_results(path: Path | None, command: str, results: Any) -> None:
    """Write figures as JSON, with what is needed to place them: machine, versions, load; nothing without a path."""
    if path is None:
        return
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    machine = {"processor": cpu_name(), "cores": cores(), "system": platform.platform(), "load": load}
    document = {
        "command": command,
        "segbatch": __version__,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": machine,
        "results": plain(results),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def plain(value: Any) -> Any:
    """Dataclasses, paths and undefined numbers, alone or in lists and mappings, as what JSON knows."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def figure(value: float | None, form: str = ".2f", unit: str = "") -> str:
    """A number with its unit, or a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:{form}} {unit}".rstrip()


def megabytes(count: float | None) -> str:
    """Bytes in MB, which is what memory is compared in."""
    if count is None:
        return "-"
    return f"{count / 1e6:,.0f} MB" if count >= 1e7 else f"{count / 1e6:.2f} MB"


def rate(share: float | None) -> str:
    """A small share, as 1.2e-04."""
    return "-" if share is None else f"{share:.1e}"


def percent(share: float | None) -> str:
    """A share of 1 in per cent."""
    return "-" if share is None else f"{share:.2%}"
