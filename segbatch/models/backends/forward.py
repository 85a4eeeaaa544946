"""A model ready to predict windows on a device, whatever runs it."""

import importlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from segbatch.errors import InputError
from segbatch.models.backends.mapper import Mapper

Function = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From (pixels, valid) to logits or class ids, as `Mapper.forward`."""

MODULES = {
    "eager": "segbatch.models.backends.eager",
    "compile": "segbatch.models.backends.compiled",
    "openvino": "segbatch.models.backends.openvino",
    "onnx": "segbatch.models.backends.onnx",
    "tensorrt": "segbatch.models.backends.tensorrt",
}


_MOST_FUNCTIONS = 8
"""Of other backends than eager each holds a network of its own. A run has few shapes of windows; scenes of eager, which
costs nothing, may have one each."""


class UnsupportedError(InputError):
    """The backend does not take this model. Trying again would end the same, unlike with a package that is missing."""


class Builder(Protocol):
    """What a backend's module offers under the name ``build``."""

    def __call__(
        self, mapper: Mapper, pixels: torch.Tensor, valid: torch.Tensor, precision: str, quantized: str | None
    ) -> Function:
        """Make a function for inputs of exactly these shapes and types.

        Args:
            mapper: The network, on its device, in evaluation mode.
            pixels: An example of the first input, on the device.
            valid: An example of the second.
            precision: Of the arithmetic.
            quantized: For int8, the file that `segbatch.models.backends.quantize` has written.

        Raises:
            UnsupportedError: The backend does not take the model.
            InputError: It is not installed, or does not take the device or the precision.
        """
        ...


class Forward:
    """Runs a model on windows of pixels as stored.

    For every shape that it meets it builds a function once: windows have one shape in a whole run.

    Args:
        model: Takes (batch, bands, height, width) float32, gives logits (batch, classes, height, width).
        mean: Of each band, in pixel values.
        std: Likewise.
        device: Where the model runs.
        backend: What runs it; one of `segbatch.models.backends.BACKENDS`.
        precision: One of `segbatch.models.backends.PRECISIONS`.
        quantized: For int8, the file that `segbatch.models.backends.quantize` has written.

    Raises:
        InputError: The backend is not installed.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        device: torch.device | str = "cpu",
        backend: str = "eager",
        precision: str = "float32",
        quantized: str | None = None,
    ) -> None:
        self.device = torch.device(device)
        self._model = model.to(device=self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._mean, self._std = tuple(mean), tuple(std)
        self._precision = precision
        self._quantized = quantized
        self._backend = backend
        self._build: Builder = importlib.import_module(MODULES[backend]).build
        self._functions: OrderedDict[tuple[object, ...], Function] = OrderedDict()
        # Ten bits less of a convolution would change class masks from one kind of GPU to another.
        torch.backends.cudnn.allow_tf32 = False

    def classes(self, pixels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Class ids (batch, height, width) uint8 on the device; see `Mapper.forward`."""
        return self._run(pixels, valid, logits=False)

    def logits(self, pixels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Logits (batch, classes, height, width) float32 on the device; see `Mapper.forward`."""
        return self._run(pixels, valid, logits=True)

    def prepare(self, pixels: torch.Tensor, valid: torch.Tensor, *, logits: bool) -> Function:
        """The function for inputs like these, built at the first call.

        Args:
            pixels: An example of the first input.
            valid: An example of the second.
            logits: Whether it is to give logits instead of class ids.
        """
        key = (tuple(pixels.shape), pixels.dtype, logits)
        if key not in self._functions:
            if len(self._functions) == _MOST_FUNCTIONS:
                self._functions.popitem(last=False)
            mapper = Mapper(self._model, self._mean, self._std, logits).to(self.device).eval()
            with torch.inference_mode():
                self._functions[key] = self._build(mapper, pixels, valid, self._precision, self._quantized)
        self._functions.move_to_end(key)
        return self._functions[key]

    def _run(self, pixels: torch.Tensor, valid: torch.Tensor, *, logits: bool) -> torch.Tensor:
        function = self.prepare(pixels, valid, logits=logits)
        with torch.inference_mode():
            return function(pixels, valid)
