"""What a process holds in memory, and what it may."""

from pathlib import Path


def resident_memory() -> int:
    """Bytes of this process's own resident memory, shared pages left out; 0 where the system does not tell.

    A predicting process never gives memory back (see `segbatch.models.allocator`), so this is its peak too.
    """
    return _kilobytes("/proc/self/status", "RssAnon:") * 1024


def total_memory() -> int:
    """Bytes of this machine's memory; 0 where the system does not tell.

    Not what is free at the moment: the size of windows must not depend on what else the machine does.
    """
    return _kilobytes("/proc/meminfo", "MemTotal:") * 1024


def _kilobytes(file: str, name: str) -> int:
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)
