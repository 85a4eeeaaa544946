"""What the runs of a call share: the work, what a clean run of it leaves, and what is slow to start."""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tests.chaos.job import CORE, SIZES, Job
from tests.chaos.process import Command, environment
from tests.chaos.verdict import State, state_of_mapping

if TYPE_CHECKING:
    from tests.chaos.cluster import Cluster
    from tests.chaos.network import Cable

_CLEAN_SECONDS = 300.0


def notes_beside(out: Path) -> Path:
    """What the probe noted of a clean run."""
    return out.with_name(f"{out.name}-notes")


def operations(out: Path) -> Counter[str]:
    """How many operations on files a clean run took, by who did them and what they belong to."""
    lines = (notes_beside(out) / "operations").read_text().splitlines()
    return Counter(line.rpartition(" ")[0] for line in lines)


@dataclass(eq=False)
class Ground:
    """A folder for everything, and what is made in it when it is first asked for.

    Args:
        folder: Empty.
        stack: Ends what was started.
    """

    folder: Path
    stack: ExitStack = field(default_factory=ExitStack)

    @cached_property
    def job(self) -> Job:
        """The scenes to map."""
        job = Job(self.folder / "job")
        job.make()
        return job

    @property
    def blocks(self) -> list[tuple[str, int]]:
        """Scene and number of each block."""
        counts = {name: (rows // CORE) * (cols // CORE) for name, (rows, cols) in SIZES.items()}
        return [(name, number) for name, count in counts.items() for number in range(count)]

    @cached_property
    def clean(self) -> State:
        """What the inline engine leaves where nothing disturbs it; sums are exact, so all engines must leave that."""
        out = self.folder / "clean"
        self.run_clean(self.job.command(out, "inline"), out)
        return state_of_mapping(out)

    def run_clean(self, words: Sequence[str], out: Path) -> None:
        """Run a command that nothing disturbs, with the probe's notes beside its folder.

        Raises:
            RuntimeError: It fails.
        """
        notes = notes_beside(out)
        notes.mkdir()
        command = Command(words, environment(notes, out), out.with_name(f"{out.name}.log"))
        code = command.wait(_CLEAN_SECONDS)
        command.end()
        if code != 0:
            raise RuntimeError(f"The clean run ended with {code}:\n{command.said}")

    @cached_property
    def operations(self) -> Counter[str]:
        """How many operations on files the clean run took, by who did them and what they belong to."""
        assert self.clean is not None
        return operations(self.folder / "clean")

    @cached_property
    def cluster(self) -> "Cluster":
        """A Ray cluster that stays up."""
        from tests.chaos.cluster import Cluster

        (self.folder / "cluster-notes").mkdir()
        return self.stack.enter_context(Cluster(self.folder / "cluster", self.folder / "cluster-notes"))

    @cached_property
    def wired(self) -> "tuple[Cluster, Cable]":
        """Another cluster that stays up, one of whose nodes is in a network namespace at the end of a cable."""
        from tests.chaos.cluster import Cluster, Place
        from tests.chaos.network import HERE, cable

        (self.folder / "wired-notes").mkdir()
        laid = self.stack.enter_context(cable())
        places = Place(HERE), laid.place
        cluster = Cluster(self.folder / "wired", self.folder / "wired-notes", Place(HERE), places)
        return self.stack.enter_context(cluster), laid
