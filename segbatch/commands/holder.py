"""Who holds a lock: what a command says of itself, and how it ends when the lock was taken from it."""

import os
import shlex
import sys
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

LEASE_SECONDS = 120.0
"""How long the lock of another machine must have stood still to be dead."""

REFRESH_SECONDS = 10.0
"""How often a living one is refreshed. A machine that slept for longer than the lease may write for two refreshes more
before it finds that its lock was taken, and ends."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has taken the lock.

    Args:
        process: Its id; None where that cannot be read.
        host: Name of its machine.
        command: Its command; None where that is not known.
        since: When it took the lock, as ISO 8601; likewise.
        is_alive: Whether it is at work, as far as can be told from here.
    """

    process: int | None
    host: str
    command: str | None
    since: str | None
    is_alive: bool

    def __str__(self) -> str:
        """For people."""
        text = "another command" if self.process is None else f"process {self.process} on {self.host}"
        return text if self.command is None else f"{self.command} ({text}) since {_to_seconds(self.since)}"


def this_command() -> str:
    """This process's command for people, without paths to Python and secrets that an option may hold."""
    words = [word for word in sys.argv[1:2] if not word.startswith("-")]
    return shlex.join(["segbatch", *words])


def now() -> str:
    """To the microsecond: what was done before it must not look as if it was done after."""
    return datetime.now().astimezone().isoformat(" ")


def stop_at_once(lock: str, reason: str) -> NoReturn:
    """Another command may be writing the folder by now, so that not even an orderly end would do it good."""
    sys.stderr.write(f"Error: the lock {lock} was lost ({reason}). Run the same command again.\n")
    sys.stderr.flush()
    os._exit(1)


def _to_seconds(since: str | None) -> str:
    with suppress(TypeError, ValueError):
        return datetime.fromisoformat(since).isoformat(" ", "seconds")  # type: ignore[arg-type]
    return str(since)
