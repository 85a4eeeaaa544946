"""Loading a bundle into a predictor, in the process that predicts."""

import torch

from segbatch.inference.predictor import Predictor
from segbatch.inference.settings import Settings
from segbatch.models.backends.forward import Forward
from segbatch.models.bundle import load_bundle


def load_predictor(
    bundle: str, settings: Settings, quantized: str | None, threads: int | None, device: str
) -> Predictor:
    """A predictor of a bundle's model.

    Args:
        bundle: Folder of the bundle.
        settings: How windows become class masks.
        quantized: File of the int8 model, where the precision is int8.
        threads: Torch threads, or None to leave them as they are. Ray sets few, by the CPUs that an actor reserves.
        device: Where the model runs.

    Raises:
        InputError: The folder is not a bundle, or the backend is not installed.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    loaded = load_bundle(bundle)
    forward = Forward(
        loaded.model,
        loaded.card.mean,
        loaded.card.std,
        device=device,
        backend=settings.backend,
        precision=settings.precision,
        quantized=quantized,
    )
    return Predictor(forward, settings, loaded.card.stride)
