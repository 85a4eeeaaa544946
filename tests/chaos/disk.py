"""A file system that is full before the work is done, and is made larger."""

import os
import subprocess

from tests.chaos.fault import Fault, Skip
from tests.chaos.process import Command

_PAGE = 4096
_ROOMY = "256m"


class Disk(Fault):
    """The run's folder is on a tmpfs that has room for a part of what the run writes."""

    kind = "disk"
    codes = frozenset({1, 2})

    @classmethod
    def check(cls) -> None:
        """See `Fault.check`."""
        if not hasattr(os, "geteuid") or os.geteuid() != 0:
            raise Skip("mounting a file system takes root")

    def begin(self) -> None:
        """See `Fault.begin`."""
        assert self.ground.clean is not None
        clean = self.ground.folder / "clean"
        pages = sum(-(-path.stat().st_size // _PAGE) + 1 for path in clean.rglob("*"))
        self._full = max(16, int(pages * self.rng.uniform(0.05, 1.05)))
        self.out.mkdir()
        self._mounted = self._mount(f"size={self._full * _PAGE}")
        if not self._mounted:
            raise RuntimeError("a tmpfs cannot be mounted here")

    def strike(self, command: Command, number: int) -> None:
        """See `Fault.strike`."""
        if number == 0:
            code = command.wait(self.seconds)
            if code != 0:
                self.hit(f"a disk of {self._full * _PAGE / 1e6:.1f} MB")

    def mend(self) -> None:
        """See `Fault.mend`."""
        self._mount(f"remount,size={_ROOMY}")

    def end(self) -> None:
        """See `Fault.end`."""
        if getattr(self, "_mounted", False):
            subprocess.run(["umount", "--lazy", str(self.out)], check=True)

    def _mount(self, options: str) -> bool:
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.out)]
        return subprocess.run(words, check=False, capture_output=True).returncode == 0
