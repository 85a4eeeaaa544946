"""The lock of a run in an object store: an object that its holder writes again every few seconds.

Each write names the version that it replaces, which the store checks: of several that take a lock, or take over a dead
one, one gets it, and who has lost it finds out with the next write. What is dead is told by the store's clock alone.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from segbatch.commands.holder import LEASE_SECONDS, REFRESH_SECONDS, Holder, now, stop_at_once, this_command
from segbatch.errors import FolderInUseError
from segbatch.storage import PARTIAL, ChangedError, ObjectPath, QuickPath

_held: set[ObjectPath] = set()
"""What this process holds: commands that call each other take a lock once."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A lock as it is at present.

    Args:
        told: What its holder has said of itself.
        version: Of the object.
        age: Seconds since it was written, by the store's clock.
    """

    told: dict[str, Any]
    version: str
    age: float

    @classmethod
    def at(cls, path: ObjectPath, now: float | None = None) -> Self | None:
        """The lock, or None where there is none.

        Args:
            path: Of its object.
            now: In seconds since the epoch; None to ask the store, which writes an object for it.
        """
        try:
            status = path.stat()
            told = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            told = {}
        age = (_store_time(path) if now is None else now) - status.st_mtime
        return cls(told if isinstance(told, dict) else {}, status.version, age)

    @property
    def is_dead(self) -> bool:
        """Whether nobody refreshes it any more."""
        return self.age > LEASE_SECONDS or self._is_of_a_lost_process

    @property
    def _is_of_a_lost_process(self) -> bool:
        if self.told.get("host") != socket.gethostname() or self.told.get("container") != _container():
            return False
        try:
            return abs(_started(psutil.Process(int(self.told["pid"]))) - float(self.told["started"])) > 1
        except psutil.NoSuchProcess:
            return True
        except (psutil.Error, KeyError, TypeError, ValueError):
            return False

    @property
    def holder(self) -> Holder:
        """Who has it."""
        told = self.told
        pid = told.get("pid")
        return Holder(
            pid if isinstance(pid, int) else None,
            str(told.get("host", "")),
            told.get("command"),
            told.get("since"),
            not self.is_dead,
        )


@contextmanager
def hold_object(path: ObjectPath) -> Iterator[None]:
    """Hold the lock at ``path``, and refresh it meanwhile.

    Raises:
        FolderInUseError: Another command holds it.
    """
    if path in _held:
        yield
        return
    lock = _Lock(QuickPath(str(path)))
    lock.take()
    _held.add(path)
    done = threading.Event()
    keeper = threading.Thread(target=lock.keep, args=(done,), daemon=True, name="segbatch-lock")
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()
        _held.discard(path)
        lock.give_back()


def object_holder(path: ObjectPath) -> Holder | None:
    """Who holds the lock at ``path``, by this machine's clock; None where nobody does. Nothing is written."""
    found = _Found.at(path, time.time())
    return None if found is None else found.holder


class _Lock:
    """A lock that this process takes, keeps and gives back.

    Args:
        path: Of its object.
    """

    def __init__(self, path: ObjectPath) -> None:
        self._path = path
        self._version = ""
        process = psutil.Process()
        self._told = {
            "pid": process.pid,
            "started": _started(process),
            "host": socket.gethostname(),
            "container": _container(),
            "command": this_command(),
            "since": now(),
            "token": uuid.uuid4().hex,
        }

    def take(self) -> None:
        """Take it.

        Raises:
            FolderInUseError: Another command holds it.
        """
        found = _Found.at(self._path)
        if found is not None and not found.is_dead:
            raise self._taken(found)
        try:
            self._put(None if found is None else found.version)
        except ChangedError as error:
            raise self._taken(_Found.at(self._path)) from error

    def keep(self, done: threading.Event) -> None:
        """Refresh it until it is done with; end the process when it was lost."""
        last = time.monotonic()
        while not done.wait(REFRESH_SECONDS):
            try:
                self._put(self._version)
                last = time.monotonic()
            except ChangedError:
                stop_at_once(str(self._path), "another command has taken it")
            except OSError as error:
                if time.monotonic() - last > LEASE_SECONDS - REFRESH_SECONDS:
                    stop_at_once(str(self._path), f"the store does not answer: {error}")

    def give_back(self) -> None:
        """Remove it, unless another command has taken it."""
        with suppress(OSError):
            if self._path.stat().version == self._version:
                self._path.unlink(missing_ok=True)

    def _put(self, version: str | None) -> None:
        """Write it in place of that version; of a write whose answer was lost, and that was tried again, none is lost.

        Raises:
            ChangedError: Somebody else has written it.
        """
        # What differs from write to write makes each version another one.
        content = json.dumps({**self._told, "written": now()}).encode()
        try:
            self._version = self._path.put(content, create=version is None, version=version).version
        except ChangedError:
            with suppress(FileNotFoundError, ValueError, AttributeError):  # it is gone, or not a command's
                status = self._path.stat()
                if json.loads(self._path.read_bytes()).get("token") == self._told["token"]:
                    self._version = status.version
                    return
            raise

    def _taken(self, found: _Found | None) -> FolderInUseError:
        who = "another command" if found is None else str(found.holder)
        return FolderInUseError(f"{self._path.parent} is being written by {who}.")


def _store_time(path: ObjectPath) -> float:
    """The store's clock, by an object that is written for it."""
    probe = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    probe.put(b"")
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _started(process: psutil.Process) -> float:
    """When a process was started, in seconds since the machine was: no setting of the clock changes it."""
    return process.create_time() - psutil.boot_time()


def _container() -> str:
    """Tells machines of one name, their boots and containers apart: where it differs, process numbers say nothing."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    return ""
