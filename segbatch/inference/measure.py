"""Running real windows through each backend: how fast it is, and how well it agrees with eager float32. Pure torch."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from segbatch.inference.tuning import REFERENCE, worth_trying
from segbatch.models.backends.agreement import agreement
from segbatch.models.backends.footprint import pixel_bytes
from segbatch.models.backends.forward import Forward, UnsupportedError
from segbatch.models.bundle import Bundle
from segbatch.models.profile import FAILED, Profile, Speed, kind
from segbatch.scenes.scene import Pixels

_ROUNDS = 2


def measure(
    bundle: Bundle,
    samples: Sequence[Pixels],
    candidates: Sequence[tuple[str, str]],
    *,
    device: torch.device,
    name: str,
    pixels: float,
    known: Profile | None = None,
    quantized: str | None = None,
) -> Profile:
    """Run the samples through each backend worth trying.

    Args:
        bundle: The model.
        samples: Real windows, all of one shape.
        candidates: (backend, precision) to consider.
        device: Where the model runs.
        name: Of the device, for the profile.
        pixels: Of all windows of the run.
        known: What was measured before.
        quantized: File of the int8 model, where int8 is among the candidates.

    Returns:
        What is known now.
    """
    profile = replace(known or Profile(name, 0.0), pixel_bytes=pixel_bytes(bundle.model, len(bundle.card.mean)))
    speeds = dict(profile.speeds)
    reference, speeds[REFERENCE] = _measure(bundle, samples, ("eager", "float32"), device, None, None)
    for backend, precision in worth_trying(candidates, speeds, pixels):
        try:
            _, speed = _measure(bundle, samples, (backend, precision), device, reference, quantized)
        except UnsupportedError:
            speed = FAILED
        except Exception as error:
            # It is not installed, or memory ran out, or a compiler failed in a way of its own: eager always goes, and
            # the next time this may.
            logging.getLogger(__name__).info("%s in %s: %s", backend, precision, error)
            continue
        speeds[kind(backend, precision)] = speed
    return replace(profile, speeds=speeds)


def _measure(
    bundle: Bundle,
    samples: Sequence[Pixels],
    how: tuple[str, str],
    device: torch.device,
    reference: torch.Tensor | None,
    quantized: str | None,
) -> tuple[torch.Tensor, Speed]:
    """The classes of the samples, and the speed; without a reference the agreement is 1."""
    card = bundle.card
    forward = Forward(
        bundle.model,
        card.mean,
        card.std,
        device=device,
        backend=how[0],
        precision=how[1],
        quantized=quantized,
    )
    inputs = [
        (torch.from_numpy(s.values[None]).to(device), torch.from_numpy(s.valid[None, None]).to(device)) for s in samples
    ]
    started = time.perf_counter()
    forward.prepare(*inputs[0], logits=False)
    classes = torch.cat([forward.classes(*pair).cpu() for pair in inputs])
    first = time.perf_counter() - started
    times = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        for pair in inputs:
            forward.classes(*pair).cpu()
        times.append(time.perf_counter() - started)
    valid = torch.cat([pair[1][:, 0].cpu() for pair in inputs])
    agreed = 1.0 if reference is None else agreement(reference, classes, valid)
    area = sum(sample.valid.size for sample in samples)
    return classes, Speed(area / min(times) / 1e6, max(0.0, first - min(times)), agreed)
