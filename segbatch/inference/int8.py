"""Making a bundle's model run in 8-bit integers: quantized with windows of the scenes to map, and measured."""

from dataclasses import dataclass, replace

from segbatch.inference.probe import Probe, find_samples
from segbatch.models.profile import Profile, kind, read_profile, write_profile
from segbatch.storage import scratch_folder


@dataclass(frozen=True, slots=True)
class Quantization:
    """What to make.

    Args:
        probe: What to measure it with; its backend runs it.
        path: Of the quantized model.
        shape: (batch, height, width) of the run's windows, the only ones that it will take.
    """

    probe: Probe
    path: str
    shape: tuple[int, int, int]


def run_quantization(job: Quantization) -> Profile:
    """Quantize and measure; what was found is kept beside the bundle.

    Raises:
        InputError: The bundle cannot be loaded, a package is missing, the model cannot be quantized, or no scene has
            a window to measure with.
    """
    # The driver plans with this module, and torch would cost it seconds.
    import torch

    from segbatch.inference.measure import measure
    from segbatch.models.allocator import keep_freed_memory
    from segbatch.models.backends.quantize import quantize
    from segbatch.models.bundle import load_bundle

    probe = job.probe
    keep_freed_memory()
    if probe.threads is not None:
        torch.set_num_threads(probe.threads)
    bundle = load_bundle(probe.bundle)
    samples = find_samples(probe.sources, bundle.card.stride)
    windows = [(torch.from_numpy(s.values[None]), torch.from_numpy(s.valid[None, None])) for s in samples]
    model, mean, std = bundle.model, bundle.card.mean, bundle.card.std
    quantize(model, mean, std, windows, job.path, job.shape)
    assert probe.backend is not None  # the caller names what is to run it
    with scratch_folder() as folder:
        # The run's windows may be too large to measure with in seconds.
        like_samples = folder / "samples.onnx"
        quantize(model, mean, std, windows, like_samples)
        profile = measure(
            bundle,
            samples,
            [(probe.backend, "int8")],
            device=torch.device("cpu"),
            name=probe.device_name,
            pixels=probe.pixels,
            known=_without(read_profile(probe.bundle, probe.device_name), kind(probe.backend, "int8")),
            quantized=str(like_samples),
        )
    write_profile(probe.bundle, profile)
    return profile


def _without(profile: Profile | None, name: str) -> Profile | None:
    """A profile that does not know a kind: how far int8 agrees depends on the scenes that it was quantized with."""
    if profile is None:
        return None
    return replace(profile, speeds={key: speed for key, speed in profile.speeds.items() if key != name})
