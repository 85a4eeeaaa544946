"""The lock of a run's folder: one command at a time writes it, on this machine or on any that shares its file system.

The lock is a file that a living command refreshes. filelock takes one away from a dead process of this machine at
once, by process id and start time, and two takers never get in each other's way. What it leaves to us are locks of
other machines, and file systems that cannot exchange two names (NFS): there a lock is dead when it was not refreshed
for a while. In an object store the lock is `segbatch.commands.object_lock`'s affair.
"""

import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from segbatch.commands.folder import RunFolder, write_json
from segbatch.commands.holder import LEASE_SECONDS, REFRESH_SECONDS, Holder, now, stop_at_once, this_command
from segbatch.commands.object_lock import hold_object, object_holder
from segbatch.errors import FolderInUseError
from segbatch.runtime import terminate_as_interrupt
from segbatch.storage import is_remote

if TYPE_CHECKING:
    from filelock import LeaseCompromise, OwnerRecord, SoftFileLease

_LOCK = ".lock"

_TRY_SECONDS = 0.5
"""Enough to take over from a dead process; a living one is not waited for."""


@contextmanager
def hold(folder: RunFolder) -> Iterator[None]:
    """Keep other commands from writing the folder, which must be there. Commands that call each other hold it once.

    While it is held SIGTERM is Ctrl-C, so that the lock is given back.

    Raises:
        FolderInUseError: Another command holds it.
    """
    if is_remote(folder.path):
        with terminate_as_interrupt(), hold_object(folder.path / _LOCK):
            yield
        return
    lease = _lease(folder)
    if lease.is_locked:
        yield
        return
    told = _details(folder)
    with terminate_as_interrupt():
        _acquire(lease, folder)
        try:
            write_json(told, {"pid": os.getpid(), "command": this_command(), "since": now()})
            yield
        finally:
            with suppress(OSError):
                told.unlink(missing_ok=True)
            lease.release()


def holder(folder: RunFolder) -> Holder | None:
    """Who holds the lock of a folder, found without touching anything; None where nobody does.

    A holder on another machine is alive as long as its lock is refreshed, by the clocks of both machines.
    """
    if is_remote(folder.path):
        return object_holder(folder.path / _LOCK)
    lease = _lease(folder)
    try:
        age = time.time() - Path(lease.lock_file).stat().st_mtime
    except OSError:
        return None
    owner = lease.owner
    is_alive = abs(age) < LEASE_SECONDS
    if owner is None:
        return Holder(None, "", None, None, is_alive)
    if _host(owner) == socket.gethostname():
        # Of a process in another container of this machine its number says nothing.
        is_alive = _is_alive(owner) or (is_alive and not _is_visible(owner))
    told = _told(folder, owner)
    return Holder(owner.pid, _host(owner), told.get("command"), told.get("since"), is_alive)


def _lease(folder: RunFolder) -> "SoftFileLease":
    from filelock import SoftFileLease

    return SoftFileLease(
        folder.path.absolute() / _LOCK,
        timeout=_TRY_SECONDS,
        lease_duration=LEASE_SECONDS,
        heartbeat_interval=REFRESH_SECONDS,
        on_compromise=_lost,
        is_singleton=True,
    )


def _acquire(lease: "SoftFileLease", folder: RunFolder) -> None:
    from filelock import FileLock, LeaseSettingsMismatch, Timeout

    taken = Timeout, LeaseSettingsMismatch  # the second one by another version of segbatch
    with suppress(*taken):
        lease.acquire()
        return
    if _is_dead(lease):
        # The kernel's lock, which dies with its process: of two commands that find a dead lock one removes it, and the
        # other looks again.
        with suppress(Timeout), FileLock(f"{lease.lock_file}.guard", timeout=10):
            if _is_dead(lease):
                lease.force_break()
        with suppress(*taken):
            lease.acquire()
            return
    raise FolderInUseError(f"{folder.path} is being written by {_holder(lease, folder)}.")


def _is_dead(lease: "SoftFileLease") -> bool:
    """Whether nothing has refreshed the lock for a while, by the clock of the file system that it lies on."""
    owner = lease.owner
    if owner is not None and _host(owner) == socket.gethostname() and _is_alive(owner):
        return False  # perhaps it was stopped with Ctrl-Z, or this machine slept
    path = Path(lease.lock_file)
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".clock") as probe:
            return os.stat(probe.name).st_mtime - path.stat().st_mtime > LEASE_SECONDS
    except FileNotFoundError:
        return False


def _is_alive(owner: "OwnerRecord") -> bool:
    """Whether the process that took the lock lives: in a container that was started anew numbers come again."""
    try:
        started = psutil.Process(owner.pid).create_time() - psutil.boot_time()
    except psutil.Error:
        return False
    if owner.start is None or sys.platform != "linux":
        return True
    # filelock notes clock ticks since the boot, whose id is in the bits above.
    return abs((owner.start & (1 << 64) - 1) / os.sysconf("SC_CLK_TCK") - started) < 1


def _is_visible(owner: "OwnerRecord") -> bool:
    """Whether a process of this machine, were it alive, would be seen from this container."""
    _, _, theirs = owner.hostname.partition("?")
    with suppress(OSError):
        return not theirs or theirs.endswith(f"-{os.stat('/proc/self/ns/pid').st_ino:x}")
    return True


def _holder(lease: "SoftFileLease", folder: RunFolder) -> str:
    """Who holds the lock, and since when."""
    owner = lease.owner
    if owner is None:
        return f"another command (if there is none, remove {lease.lock_file})"
    told = _told(folder, owner)
    return str(Holder(owner.pid, _host(owner), told.get("command"), told.get("since"), True))


def _told(folder: RunFolder, owner: "OwnerRecord") -> dict[str, str]:
    """What the holder has said of itself: command and since; empty where that is not known."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        told = json.loads(_details(folder).read_text(encoding="utf-8"))
        if told["pid"] == owner.pid:
            return {"command": str(told["command"]), "since": str(told["since"])}
    return {}


def _host(owner: "OwnerRecord") -> str:
    return owner.hostname.partition("?")[0]  # what follows tells containers of one host apart


def _details(folder: RunFolder) -> Path:
    """The file that says what people want to know of the holder; only together with the lock does it count."""
    return folder.path / ".lock.json"


def _lost(lease: "LeaseCompromise") -> None:
    stop_at_once(str(lease.lock_file), str(lease.reason))
