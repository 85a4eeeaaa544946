"""Python imports this by itself in each process whose PYTHONPATH names this folder: those of a run under test.

It notes which blocks each stage began, and lets a process kill itself before an operation on a file of the run: in the
real command and in the workers of Ray, with nothing of either changed.

The environment says what to do:

- ``SEGBATCH_CHAOS_NOTES``: folder of the notes. ``begun`` holds a line for each block that a stage began and
  each step of a training,
  ``operations`` one for each operation on a file, ``killed`` the one before which a process killed itself.
- ``SEGBATCH_CHAOS_RUN``: folder of the run; operations elsewhere do not count.
- ``SEGBATCH_CHAOS_KILL``: as ``driver ledger 17``: who dies, and before which operation of which kind. Once only.
"""

import builtins
import functools
import importlib.abc
import importlib.util
import io
import os
import signal
import sys
import threading
from collections import Counter
from typing import Any

_NOTES = os.environ.get("SEGBATCH_CHAOS_NOTES", "")
_RUN = os.environ.get("SEGBATCH_CHAOS_RUN", "")
_KILL = os.environ.get("SEGBATCH_CHAOS_KILL", "")

_open, _write, _close = os.open, os.write, os.close
_lock = threading.Lock()
_counts: Counter[str] = Counter()


def part_of_run(path: str) -> str:
    """What a file of a run, by its path in the run's folder, belongs to."""
    first, _, rest = path.partition("/")
    if first == "masks":
        if rest.startswith(".parts"):
            return "part"
        if ".zarr" in rest.partition("/")[0]:
            return "shard" if "/class_mask/c/" in rest else "store"
        return "cog" if ".tif" in rest else "masks"
    for part in ("run.json", ".lock", "ledger", "report", ".training", "bundle", "metrics.jsonl"):
        if first.lstrip(".").startswith(part.lstrip(".")):
            return part.lstrip(".")
    return "other"


def _note(name: str, line: str) -> None:
    try:
        # A line is appended in one piece, whoever else appends.
        file = _open(f"{_NOTES}/{name}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    except OSError:  # the runner has ended
        return
    _write(file, line.encode() + b"\n")
    _close(file)


def _operation(name: str, path: str) -> None:
    part = part_of_run(os.path.relpath(path, _RUN))
    who = "worker" if sys.argv[:1] and sys.argv[0].endswith("default_worker.py") else "driver"
    with _lock:
        _counts[part] += 1
        number = _counts[part]
    _note("operations", f"{who} {part} {name}")
    if f"{who} {part} {number}" == _KILL:
        try:
            _close(_open(f"{_NOTES}/killed", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        except FileExistsError:  # a process that took the place of the one that died
            return
        _note("killed", f"{name} {path}")
        os.kill(os.getpid(), signal.SIGKILL)


def _guarded(name: str, function: Any, changes: Any = lambda *args, **keywords: True) -> Any:
    @functools.wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        path = args[0] if args else None
        if name == "fsync":
            try:
                path = os.readlink(f"/proc/self/fd/{path}")
            except OSError:
                path = None
        if isinstance(path, (str, os.PathLike)):
            path = os.path.abspath(os.fspath(path))
            if isinstance(path, str) and path.startswith(f"{_RUN}/") and changes(*args, **keywords):
                _operation(name, path)
        return function(*args, **keywords)

    return call


def _for_writing(file: Any, mode: str = "r", *rest: Any, **keywords: Any) -> bool:
    return any(letter in mode for letter in "wax+")


def _creates(path: Any, flags: int, *rest: Any, **keywords: Any) -> bool:
    return bool(flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR))


def _guard_files() -> None:
    for name in ("replace", "rename", "unlink", "remove", "rmdir", "mkdir", "link", "fsync"):
        setattr(os, name, _guarded(name, getattr(os, name)))
    os.open = _guarded("open", os.open, _creates)  # type: ignore[assignment]
    builtins.open = io.open = _guarded("open", io.open, _for_writing)  # type: ignore[assignment]


class _Watch(importlib.abc.MetaPathFinder):
    """Lets stages tell which blocks they begin, and a learner its steps, as soon as they are imported."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name not in _WATCHED:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        sys.meta_path.insert(0, self)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def execute_and_watch(module: Any) -> None:
            execute(module)
            for owner, method, told in _WATCHED[name]:
                _watch(getattr(module, owner), method, told)

        spec.loader.exec_module = execute_and_watch  # type: ignore[method-assign]
        return spec


_WATCHED = {
    "segbatch.inference.stages": [(f"{name}Stage", "__call__", name.lower()) for name in ("Read", "Predict", "Write")],
    "segbatch.training.learner": [("Learner", "backward", "step")],
}


def _watch(owner: Any, method: str, told: str) -> None:
    begin = getattr(owner, method)

    def call(self: Any, *args: Any) -> Any:
        _note("begun", told)
        return begin(self, *args)

    setattr(owner, method, call)


if _NOTES:
    sys.meta_path.insert(0, _Watch())
    if _RUN:
        _guard_files()
