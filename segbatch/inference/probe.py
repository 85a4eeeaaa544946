"""Measuring a bundle on the device that is to run it: what a worker does when `segbatch.inference.tuning` is asked."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from segbatch.errors import InputError, SceneReadError
from segbatch.inference.samples import Source, read_samples
from segbatch.inference.tuning import REFERENCE, worth_trying
from segbatch.models.profile import Profile, kind, read_profile, write_profile
from segbatch.scenes.scene import Pixels

_SIDE = 1024
"""Side of the windows that are measured: large enough that a pixel takes as long as in larger ones."""

_SAMPLES = 2

_TRIES = 9
"""Windows of a scene that are looked at for one that is mostly valid."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What to measure.

    Args:
        bundle: Folder of the bundle.
        device_name: For the profile.
        use_gpu: Whether the model runs on a GPU.
        threads: Torch threads, or None to leave them as they are.
        sources: Where real windows come from.
        pixels: Of all windows that one process is going to run.
        backend: The only one to consider, or None.
        precision: The only one to consider, or None for all but int8, which changes much.
    """

    bundle: str
    device_name: str
    use_gpu: bool
    threads: int | None
    sources: tuple[Source, ...]
    pixels: float
    backend: str | None = None
    precision: str | None = None

    def allows(self, name: str) -> bool:
        """Whether a ``backend/precision`` may be used."""
        backend, precision = name.split("/")
        return self.backend in (None, backend) and (
            precision == self.precision if self.precision else precision != "int8"
        )

    def candidates(self) -> list[tuple[str, str]]:
        """What this process has of what may be used."""
        from segbatch.models.backends.available import available

        found: list[tuple[str, str]] = list(available("cuda" if self.use_gpu else "cpu"))
        if self.backend:
            # What is asked for by name may be what is never proposed.
            found = [(self.backend, precision) for precision in (self.precision, "float32", "bf16") if precision]
        return [how for how in found if self.allows(kind(*how))]

    def would_learn(self, known: Profile | None) -> bool:
        """Whether measuring could tell more than is known."""
        if known is None or REFERENCE not in known.speeds:
            return True
        return next(worth_trying(self.candidates(), known.speeds, self.pixels), None) is not None


def run_probe(probe: Probe) -> Profile:
    """Measure, and keep what was found beside the bundle.

    Raises:
        InputError: The bundle cannot be loaded, or no scene has a window to measure with.
    """
    # The driver plans with this module, and torch would cost it seconds.
    import torch

    from segbatch.inference.measure import measure
    from segbatch.models.allocator import keep_freed_memory
    from segbatch.models.bundle import load_bundle

    keep_freed_memory()
    if probe.threads is not None:
        torch.set_num_threads(probe.threads)
    bundle = load_bundle(probe.bundle)
    profile = measure(
        bundle,
        find_samples(probe.sources, bundle.card.stride),
        probe.candidates(),
        device=torch.device("cuda" if probe.use_gpu else "cpu"),
        name=probe.device_name,
        pixels=probe.pixels,
        known=read_profile(probe.bundle, probe.device_name),
    )
    write_profile(probe.bundle, profile)
    return profile


def find_samples(sources: Sequence[Source], stride: int) -> list[Pixels]:
    """Windows with valid pixels, of one shape, from different scenes where there are several.

    Raises:
        InputError: There is none.
    """
    found: list[Pixels] = []
    for source in sources:
        with suppress(SceneReadError):  # mapping tells of damaged scenes
            samples = read_samples([source], stride=stride, side=_SIDE, pixels=_TRIES * _SIDE**2)
            alike = (s for s in samples if not found or s.valid.shape == found[0].valid.shape)
            found += islice((sample for sample in alike if 2 * sample.valid.sum() > sample.valid.size), 1)
        if len(found) == _SAMPLES:
            break
    if not found:
        raise InputError(
            f"{sources[0].image} has no window that is mostly valid, to compare backends with. "
            "Choose them: --backend eager --precision float32."
        )
    return found
