"""What several commands take on their command lines."""

from pathlib import Path

import typer

from segbatch.redaction import redact
from segbatch.storage import place


def as_place(text: object) -> Path:
    """A folder, or a place in an object store, as typer's parser. `Path` alone would make s3:/bucket of s3://bucket."""
    try:
        return place(str(text))
    except ValueError as error:
        raise typer.BadParameter(redact(str(error))) from error
