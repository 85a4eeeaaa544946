"""What a command prints when it is done, and the exit code that it ends with."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbatch.errors import FolderInUseError, InputError
from segbatch.redaction import redact

if TYPE_CHECKING:
    from segbatch.commands.only_new import Outcome

EXIT_SCENES_FAILED = 3


def show(document: dict[str, Any], folder: Path) -> int:
    """Print the table and where to look.

    Returns:
        The exit code.
    """
    from segbatch.commands.progress import out
    from segbatch.report.tables import console_summary

    out.print(console_summary(document))
    out.print(f"\nReport: {folder / 'report' / 'report.html'}", soft_wrap=True, markup=False)
    if (folder / "masks").is_dir():
        out.print(f"Class masks: {folder / 'masks'}", soft_wrap=True, markup=False)
    return EXIT_SCENES_FAILED if document["failed"] else 0


def show_new(command: "Callable[[], Outcome]", folder: Path, overwrite: bool) -> int:
    """Run what a schedule starts and print a few lines for its log.

    An earlier run that goes on is no error: the next one does what is left.

    Returns:
        The exit code.

    Raises:
        InputError: Bad input.
    """
    from segbatch.commands.progress import out, say

    if overwrite:
        raise InputError("--only-new keeps what is mapped and --overwrite throws it away: give one of them.")
    try:
        outcome = command()
    except FolderInUseError as error:
        say(f"{error} This run is skipped; the next one maps what is new by then.")
        return 0
    if outcome.document is not None:
        out.print(f"Report: {folder / 'report' / 'report.html'}", soft_wrap=True, markup=False)
        out.print(f"Class masks: {folder / 'masks'}", soft_wrap=True, markup=False)
        out.print(f"Scenes: {folder / 'index.csv'}", soft_wrap=True, markup=False)
    for scene, why in outcome.failed:
        say(f"Failed: {scene}: {why}")
    return EXIT_SCENES_FAILED if outcome.failed else 0


def print_lines(lines: Sequence[tuple[str, str]]) -> None:
    """Print names and values in two columns, without secrets of addresses."""
    from segbatch.commands.progress import out

    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        out.print(f"{name:<{width}}  {redact(value)}", soft_wrap=True, markup=False)
