"""``segbatch status``: how far a run is, once or again and again. Heavy imports stay inside the command."""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segbatch.commands.arguments import as_place
from segbatch.log import finite
from segbatch.redaction import redact, redact_all

if TYPE_CHECKING:
    from segbatch.commands.folder import RunFolder
    from segbatch.commands.look import Status


def add_status(app: typer.Typer) -> None:
    """Give a command line the command ``status``."""
    app.command()(status)


def status(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a run.", metavar="RUN", parser=as_place)],
    watch: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=0.1, help="Look again every so often, as long as somebody is at it."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON object a line, for programs.")] = False,
) -> None:
    """How far a run is: blocks and epochs, speed, time left, failures, who is at it.

    Reads the run's files alone: it works from any machine that sees them, also while they are written.
    """
    from segbatch.commands.folder import RunFolder
    from segbatch.commands.progress import out
    from segbatch.commands.status_lines import status_lines

    with suppress(KeyboardInterrupt):  # the way to end a watch
        for number, found in enumerate(_looks(RunFolder(run_dir), watch)):
            if as_json:
                typer.echo(json.dumps(redact_all(finite(asdict(found)))))
                continue
            if number and out.is_terminal:
                out.clear()
            elif number:
                out.print()
            lines = status_lines(found)
            width = max(len(name) for name, _ in lines)
            for name, text in lines:
                out.print(f"{name:<{width}}  {redact(text)}", markup=False, soft_wrap=True)


def _looks(folder: "RunFolder", seconds: float | None) -> "Iterator[Status]":
    from segbatch.commands.look import Counted, look

    counted = Counted()
    while True:
        found = look(folder, counted)
        yield found
        if seconds is None or not found.is_held:
            return
        time.sleep(seconds)
