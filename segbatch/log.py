"""What is said on standard error: lines for people, or a JSON object a line for programs."""

import io
import json
import math
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal, TextIO, cast

from segbatch.redaction import redact

Format = Literal["text", "json"]
Level = Literal["info", "warning", "error"]

FORMATS: tuple[Format, ...] = ("text", "json")


class JsonLines(io.TextIOBase):
    """Standard error as JSON: what is written there becomes an object a line, whoever writes it.

    What is written up to an end of line is one message: this is how logging, warnings, print and the command line's
    usage errors write theirs.

    Args:
        stream: Where the lines go.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._pending = ""
        self._lock = threading.RLock()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """What the command line's library asks for before it trusts a stream."""
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """Likewise."""
        return "strict"

    def writable(self) -> bool:
        """Yes."""
        return True

    def fileno(self) -> int:
        """That of the stream: for what is written past Python."""
        return self._stream.fileno()

    def flush(self) -> None:
        """Nothing: whole messages are written at once."""

    def write(self, text: str) -> int:
        """Take text that is no message yet, or ends one."""
        with self._lock:
            self._pending += text
            if text.endswith("\n"):
                self.finish()
        return len(text)

    def finish(self) -> None:
        """Say what has had no end of line so far."""
        with self._lock:
            text, self._pending = self._pending, ""
            # Bars of downloads go back to the start of their line again and again: their last state is what counts.
            message = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
            if message.strip():
                self.say(message, level_of(message), {})

    def say(self, message: str, level: Level, fields: Mapping[str, Any]) -> None:
        """Write a message, without secrets of addresses.

        Args:
            message: For people.
            level: How bad it is.
            fields: What else programs should know: plain data.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        texts = {name: redact(value) if isinstance(value, str) else value for name, value in fields.items()}
        record = {"time": now, "level": level, "message": redact(message.strip()), **texts}
        line = json.dumps(finite(record), default=str) + "\n"
        with self._lock:
            self._stream.write(line)
            self._stream.flush()


@contextmanager
def speaking(form: Format) -> Iterator[None]:
    """Have standard error speak as is asked for, as long as it lasts."""
    if form == "text":
        yield
        return
    before = sys.stderr
    lines = JsonLines(before)
    sys.stderr = cast(TextIO, lines)
    try:
        yield
    finally:
        lines.finish()
        sys.stderr = before


def say_error(message: str, level: Level = "error", **fields: Any) -> None:
    """A message about how a command ends.

    Args:
        message: For people, as lines for a terminal.
        level: How bad it is.
        fields: For programs alone.
    """
    lines = json_lines()
    if lines is None:
        sys.stderr.write(f"{redact(message)}\n")
    else:
        lines.say(message.removeprefix("Error: "), level, fields)


def json_lines() -> JsonLines | None:
    """Standard error where it speaks JSON, else None."""
    stream: object = sys.stderr
    return stream if isinstance(stream, JsonLines) else None


def level_of(message: str) -> Level:
    """How bad a message is that somebody else has written."""
    if re.search(r"^(Error|Traceback)\b", message, re.MULTILINE):
        return "error"
    return "warning" if re.search(r"^(\S*:\d+: )?\w*Warning: ", message, re.MULTILINE) else "info"


def finite(value: Any) -> Any:
    """Plain data in which numbers that JSON does not have are null."""
    if isinstance(value, Mapping):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
