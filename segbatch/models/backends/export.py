"""The mapper as an ONNX graph, which OpenVINO and ONNX Runtime read."""

import contextlib
import importlib.util
import io
from collections.abc import Sequence

import torch

from segbatch.errors import InputError
from segbatch.models.backends import missing
from segbatch.models.backends.forward import UnsupportedError
from segbatch.models.backends.mapper import Mapper
from segbatch.storage import local_file

NAMES = ("pixels", "valid")
"""Of the graph's inputs."""


def to_onnx(mapper: Mapper, pixels: torch.Tensor, valid: torch.Tensor, backend: str) -> bytes:
    """Export for inputs of exactly these shapes and types.

    Nothing is computed on the way, so the size of the windows costs neither time nor memory.

    Args:
        mapper: Without autocast.
        pixels: An example of the first input.
        valid: An example of the second.
        backend: Whose extra brings what this needs.

    Raises:
        UnsupportedError: The model has a part that ONNX does not express.
        InputError: A package is missing.
    """
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise missing(backend)
    try:
        # torch.onnx.export would do the first step too, but where that fails try it again in other ways, aloud.
        with contextlib.redirect_stderr(io.StringIO()):  # it prints the graph of what it cannot capture
            captured = torch.export.export(mapper, (pixels, valid))
        program = torch.onnx.export(captured, input_names=NAMES, dynamo=True, external_data=False, verbose=False)
        assert program is not None
        return program.model_proto.SerializeToString()
    except Exception as error:
        # The exporter raises all kinds of errors for what it does not know.
        raise refused(backend, error) from error


def refused(backend: str, reason: Exception) -> UnsupportedError:
    """The error of a model that a backend does not take."""
    line = next(iter(str(reason).strip().splitlines()), type(reason).__name__)[:300]
    return UnsupportedError(f"The backend {backend} does not take the model ({line}). Choose backend eager or compile.")


def quantized_file(path: str | None) -> str:
    """The local path of a quantized model that is there.

    Raises:
        InputError: It is not.
    """
    if path is None:
        raise InputError("precision int8 needs a model that was quantized with windows of your scenes; there is none.")
    try:
        file = local_file(path)
    except OSError as error:
        raise InputError(f"The quantized model {path} cannot be read: {error.strerror or error}.") from error
    if not file.is_file():
        raise InputError(f"The quantized model {path} does not exist.")
    return str(file)


def check_shape(path: str, shape: Sequence[int], pixels: torch.Tensor) -> None:
    """Refuse windows of another shape than those that a model was quantized for.

    Raises:
        InputError: Names both.
    """
    if tuple(shape) != tuple(pixels.shape):
        raise InputError(
            f"{path} was quantized for windows (batch, bands, height, width) of {tuple(shape)}, not of "
            f"{tuple(pixels.shape)}: quantize the model again."
        )
