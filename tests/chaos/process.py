"""A command in a process of its own, and all processes that came of it."""

import os
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
PROBE = Path(__file__).with_name("probe")

_MARK = "SEGBATCH_CHAOS_MARK"
"""Environment variable that children inherit, also those that are nobody's children any more."""


def temporary_folder(notes: Path) -> Path:
    """The temporary folder of commands that the probe watches: one of their own, so that what they leave shows."""
    return notes / "tmp"


def environment(notes: Path | None, run: Path | None = None) -> dict[str, str]:
    """The environment of a command, or of a Ray node.

    Args:
        notes: Folder for what the probe notes; None for no probe.
        run: Folder of the run, where operations on files count.
    """
    if notes:
        temporary_folder(notes).mkdir(exist_ok=True)
    known = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SEGBATCH_", "GDAL_"))}
    more = {
        # Small tensors on shared cores: threads that wait for each other would take minutes.
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([*([str(PROBE)] if notes else []), str(ROOT)]),
        "RAY_AUTH_MODE": "disabled",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "SPT_NOENV": "1",  # the titles of Ray's workers would be written over their environment, and so over the mark
        "RAY_TMPDIR": tempfile.gettempdir(),  # the names of Ray's sockets may have 107 bytes at the most
        **({"SEGBATCH_CHAOS_NOTES": str(notes), "TMPDIR": str(temporary_folder(notes))} if notes else {}),
        **({"SEGBATCH_CHAOS_RUN": str(run.absolute())} if run else {}),
    }
    return known | more


class Command:
    """A running command.

    Args:
        words: The command line.
        env: Its environment.
        log: Takes what it says, after what is there.
    """

    def __init__(self, words: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self._mark = uuid.uuid4().hex
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            stream.write(f"$ {' '.join(words)}\n".encode())
            stream.flush()
            self._before = stream.tell()
            self.process = subprocess.Popen(
                list(words), env={**env, _MARK: self._mark}, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stream,
                stderr=stream, start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """Process id of the command itself."""
        return self.process.pid

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    @property
    def said(self) -> str:
        """What it has said so far."""
        with self._log.open("rb") as stream:
            stream.seek(self._before)
            return stream.read().decode(errors="replace")

    def wait(self, seconds: float) -> int | None:
        """Its exit code; None where it has not ended within so many seconds."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def family(self) -> list[psutil.Process]:
        """The living processes that came of it, itself included."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(_MARK) == self._mark:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def left(self, seconds: float) -> list[str]:
        """What of its processes is still alive after so many seconds."""
        deadline = time.monotonic() + seconds
        while found := self.family():
            if time.monotonic() > deadline:
                return [_title(process) for process in found]
            time.sleep(0.5)
        return []

    def end(self) -> None:
        """Kill whatever is left of it."""
        for process in self.family():
            try:
                process.kill()
            except psutil.Error:
                continue
        self.process.wait()


def _title(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:60]}"
    except psutil.Error:
        return str(process.pid)
