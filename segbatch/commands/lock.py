"""The lock of a run's folder: one command at a time writes it, on this machine or on any that shares its file system.

The lock is a file that a living command refreshes. filelock takes one away from a dead process of this machine at
once, by process id and start time, and two takers never get in each other's way. What it leaves to us are locks of
other machines, and file systems that cannot exchange two names (NFS): there a lock is dead when it was not refreshed
for a while.
"""

import json
import os
import shlex
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from segbatch.commands.folder import RunFolder, write_json
from segbatch.errors import FolderInUseError
from segbatch.runtime import terminate_as_interrupt

if TYPE_CHECKING:
    from filelock import LeaseCompromise, OwnerRecord, SoftFileLease

LEASE_SECONDS = 120.0
"""How long the lock of another machine must have stood still to be dead."""

_REFRESH_SECONDS = 10.0
"""How often a living one is refreshed. A machine that slept for longer than the lease may write for two refreshes more
before it finds that its lock was taken, and ends."""

_TRY_SECONDS = 0.5
"""Enough to take over from a dead process; a living one is not waited for."""


@contextmanager
def hold(folder: RunFolder) -> Iterator[None]:
    """Keep other commands from writing the folder, which must be there. Commands that call each other hold it once.

    While it is held SIGTERM is Ctrl-C, so that the lock is given back.

    Raises:
        FolderInUseError: Another command holds it.
    """
    lease = _lease(folder)
    if lease.is_locked:
        yield
        return
    told = _details(folder)
    with terminate_as_interrupt():
        _acquire(lease, folder)
        try:
            write_json(told, {"pid": os.getpid(), "command": _command(), "since": _now()})
            yield
        finally:
            with suppress(OSError):
                told.unlink(missing_ok=True)
            lease.release()


def _lease(folder: RunFolder) -> "SoftFileLease":
    from filelock import SoftFileLease

    return SoftFileLease(
        folder.path.absolute() / ".lock",
        timeout=_TRY_SECONDS,
        lease_duration=LEASE_SECONDS,
        heartbeat_interval=_REFRESH_SECONDS,
        on_compromise=_stop_at_once,
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


def _holder(lease: "SoftFileLease", folder: RunFolder) -> str:
    """Who holds the lock, and since when."""
    owner = lease.owner
    if owner is None:
        return f"another command (if there is none, remove {lease.lock_file})"
    text = f"process {owner.pid} on {_host(owner)}"
    with suppress(OSError, ValueError, KeyError, TypeError):
        told = json.loads(_details(folder).read_text(encoding="utf-8"))
        if told["pid"] == owner.pid:
            text = f"{told['command']} ({text}) since {told['since']}"
    return text


def _host(owner: "OwnerRecord") -> str:
    return owner.hostname.partition("?")[0]  # what follows tells containers of one host apart


def _details(folder: RunFolder) -> Path:
    """The file that says what people want to know of the holder; only together with the lock does it count."""
    return folder.path / ".lock.json"


def _command() -> str:
    """This process's command for people, without paths to Python and secrets that an option may hold."""
    words = [word for word in sys.argv[1:2] if not word.startswith("-")]
    return shlex.join(["segbatch", *words])


def _now() -> str:
    return datetime.now().astimezone().isoformat(" ", "seconds")


def _stop_at_once(lost: "LeaseCompromise") -> None:
    """Another command may be writing the folder by now, so that not even an orderly end would do it good."""
    sys.stderr.write(f"Error: the lock {lost.lock_file} was lost ({lost.reason}). Run the same command again.\n")
    sys.stderr.flush()
    os._exit(1)
