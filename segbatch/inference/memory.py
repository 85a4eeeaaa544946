"""What a process holds in memory, and what it may."""

from pathlib import Path


def resident_memory() -> int:
    """Bytes of this process's own resident memory, shared pages left out; 0 where the system does not tell.

    A predicting process never gives memory back (see `segbatch.models.allocator`), so this is its peak too.
    """
    return _kilobytes("/proc/self/status", "RssAnon:") * 1024


def available_memory() -> int:
    """Bytes that this machine can still give to processes; 0 where the system does not tell."""
    return _kilobytes("/proc/meminfo", "MemAvailable:") * 1024


def _kilobytes(file: str, name: str) -> int:
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)
