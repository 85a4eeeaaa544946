"""Intel's OpenVINO, on x86 and ARM CPUs of any maker."""

from functools import cache

import torch

from segbatch.errors import InputError
from segbatch.models.backends import missing
from segbatch.models.backends.choice import class_ids
from segbatch.models.backends.export import check_shape, quantized_file, refused, to_onnx
from segbatch.models.backends.forward import Function
from segbatch.models.backends.hardware import has_bf16
from segbatch.models.backends.mapper import Mapper

try:
    import openvino
except ImportError as error:
    raise missing("openvino") from error


def build(mapper: Mapper, pixels: torch.Tensor, valid: torch.Tensor, precision: str, quantized: str | None) -> Function:
    """See `segbatch.models.backends.forward.Builder`. Takes some seconds.

    The model comes as ONNX and not through ``openvino.convert_model``, which would start a process at every
    conversion to report it to Intel.
    """
    if pixels.device.type != "cpu":
        raise InputError(f"The backend openvino runs on the CPU, not on {pixels.device}. Choose eager or compile.")
    if precision == "bf16" and not has_bf16(pixels.device):
        # OpenVINO would compute in float32 without a word, and the run's record would be wrong.
        raise InputError(
            "This CPU has no bf16 arithmetic (avx512_bf16 or AMX), and openvino does not imitate it. "
            "Choose precision float32."
        )
    graph: str | bytes = (
        quantized_file(quantized) if precision == "int8" else to_onnx(mapper, pixels, valid, "openvino")
    )
    core = _core()
    try:
        network = core.read_model(graph)
        compiled = core.compile_model(network, "CPU", _settings(precision))
    except RuntimeError as error:
        raise refused("openvino", error) from error
    if isinstance(graph, str):
        check_shape(graph, network.input(0).shape, pixels)
    request = compiled.create_infer_request()
    shape = tuple(compiled.output(0).shape)
    ids_of_logits = precision == "int8" and not mapper.logits  # a quantized model gives logits
    dtype = torch.float32 if precision == "int8" or mapper.logits else torch.uint8

    def run(pixels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        # OpenVINO reads and writes torch's own memory, and does not keep it alive: these names do. The output is a
        # new tensor at every call, for the caller may keep it.
        inputs = pixels.contiguous(), valid.contiguous()
        output = torch.empty(shape, dtype=dtype)
        for index, tensor in enumerate(inputs):
            request.set_input_tensor(index, _share(tensor))
        request.set_output_tensor(0, _share(output))
        request.infer()
        return class_ids(output) if ids_of_logits else output

    return run


@cache
def _core() -> openvino.Core:
    """The process's only one, which it never gives back.

    Each has the thread's signals handled on a stack of its own, and puts back the one before it when it ends. Where
    several end in the order in which they began, the stack that is put back has gone, and the next signal, as Ctrl-C,
    kills the process.
    """
    return openvino.Core()


def _settings(precision: str) -> dict[str, str | int | bool]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        # Several processes of a machine would be pinned to the same cores.
        "ENABLE_CPU_PINNING": False,
    }


def _share(tensor: torch.Tensor) -> openvino.Tensor:
    return openvino.Tensor(tensor.numpy(), shared_memory=True)
