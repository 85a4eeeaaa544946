"""Who predicts in a run: processes, threads, devices; and what the device can hold."""

import os
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

from segbatch.commands.progress import say, tell_standstill
from segbatch.commands.request import Request
from segbatch.commands.usage import Held, held_on_ray
from segbatch.config import Inference
from segbatch.errors import InputError
from segbatch.inference.int8 import Quantization, run_quantization
from segbatch.inference.memory import total_memory
from segbatch.inference.pool import MOST_CORES, Pool, most_cores, plan_pool
from segbatch.inference.probe import Probe, run_probe
from segbatch.models.profile import Profile, cpu_name
from segbatch.runtime import Resources, ray_session

_USUAL_GPU_BYTES = 16 * 2**30
"""Memory of a GPU that cannot be asked from here."""

_USUAL_BYTES = 8 * 2**30

_Job = TypeVar("_Job")


@dataclass(frozen=True, slots=True)
class Workers:
    """The predicting processes.

    Args:
        count: How many at a time.
        threads: Torch threads of each; None for torch's own choice.
        use_gpu: Whether each has a GPU.
        device: Name of what each runs on, for profiles.
        memory: Bytes that one of them may count on: of its GPU, or its share of what is free.
        cores: That one of them uses at the most, where it has no GPU.
    """

    count: int
    threads: int | None
    use_gpu: bool
    device: str
    memory: int
    cores: int = MOST_CORES


def inline_workers(inference: Inference) -> Workers:
    """This process alone.

    Raises:
        InputError: A GPU is asked for and there is none.
    """
    use_gpu = False
    if inference.use_gpu is not False:
        import torch

        use_gpu = torch.cuda.is_available()
        if inference.use_gpu is True and not use_gpu:
            raise InputError("use_gpu is true, but this machine has no GPU. Set it to auto or false.")
        if use_gpu:
            properties = torch.cuda.get_device_properties(0)
            return Workers(1, None, True, properties.name, properties.total_memory)
    return local_workers()


def local_workers() -> Workers:
    """This machine's processor, all of it for one process."""
    threads = _local_cpus()
    return Workers(1, None, False, _processor(threads), total_memory() or _USUAL_BYTES)


def this_machine(gpu: str | None = None) -> Held:
    """What this machine has.

    Args:
        gpu: The device's name of a GPU that is used, with which all of them are held; None where none is.
    """
    gpus: dict[str, float] = {}
    if gpu is not None:
        import torch

        short = re.match(r"\w+ (\w+)", gpu)  # as Ray has it: of NVIDIA H100 80GB HBM3 the H100
        gpus[short[1] if short else gpu] = torch.cuda.device_count()
    return Held(1, _local_cpus(), gpus)


def planned_workers(request: Request, scenes: Sequence[int]) -> Workers:
    """Who would predict scenes of so many pixels on this machine, without asking Ray; GPUs are left out."""
    inference = request.inference
    if inference.engine == "inline":
        return local_workers()
    here = inference.model_copy(update={"use_gpu": False})
    resources = Resources(nodes=((_local_cpus(), 0),))
    return ray_workers(here, resources, _cores(request, resources, scenes))


def ray_workers(inference: Inference, resources: Resources, cores: int) -> Workers:
    """The pool of actors that a cluster has room for.

    Args:
        inference: What is asked for.
        resources: What the cluster has.
        cores: That each may use at the most; see `most_cores`.

    Raises:
        InputError: GPUs are asked for and there are none.
    """
    use_gpu = resources.wants_gpu(inference.use_gpu)
    pool = pool_for(inference, resources, use_gpu, cores, blocks=2**31)
    if use_gpu:
        memory = int(_USUAL_GPU_BYTES * inference.actors.gpus)
        return Workers(pool.max, None, True, resources.accelerator or "GPU", memory)
    threads = pool.threads or 1
    # The memory of this node stands for that of the others, which cannot be asked from here.
    on_a_node = -(-pool.max // max(1, len(resources.nodes)))
    return Workers(pool.max, threads, False, _processor(threads), (total_memory() or _USUAL_BYTES) // on_a_node, cores)


def pool_for(inference: Inference, resources: Resources, use_gpu: bool, cores: int, blocks: int) -> Pool:
    """How many actors a cluster gets for so many blocks; see `plan_pool`."""
    actors = inference.actors
    return plan_pool(
        resources.nodes,
        use_gpu=use_gpu,
        min_actors=actors.min,
        max_actors=actors.max,
        blocks=blocks,
        cores=cores,
        share=actors.gpus,
        accelerator=actors.accelerator,
    )


def _cores(request: Request, resources: Resources, scenes: Sequence[int]) -> int:
    weights = request.bundle / "model.safetensors"
    return most_cores(
        scenes,
        resources.cpus,
        model_bytes=weights.stat().st_size if weights.exists() else 0,
        memory=(total_memory() or _USUAL_BYTES) / _local_cpus(),
    )


def _local_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor(threads: int) -> str:
    return f"{cpu_name()}, {threads} threads"


@dataclass(frozen=True, slots=True, eq=False)
class Crew:
    """Who does the work.

    Args:
        resources: What the Ray cluster has; None for this process alone.
        workers: The predicting processes.
        accelerator: Ray's name of the kind of GPU that they run on; None for any.
    """

    resources: Resources | None
    workers: Workers
    accelerator: str | None = None

    def held(self) -> Held:
        """All machines that are there for the work at present."""
        if self.resources is not None:
            return held_on_ray()
        return this_machine(self.workers.device if self.workers.use_gpu else None)

    def measure(self, probe: Probe) -> Profile:
        """Look for the fastest backend, where the model is going to run."""
        say(f"Looking for the fastest backend on {probe.device_name} (once for this bundle)")
        return self._call(run_probe, probe)

    def quantize(self, job: Quantization) -> Profile:
        """Make the model of a run in int8."""
        say(f"Quantizing the model for {job.probe.backend}")
        return self._call(run_quantization, job)

    def _call(self, function: Callable[[_Job], Profile], job: _Job) -> Profile:
        if self.resources is None:
            return function(job)
        from segbatch.inference.pipeline import call_once

        workers = self.workers
        return call_once(
            function,
            job,
            cpus=workers.threads or 1,
            use_gpu=workers.use_gpu,
            accelerator=self.accelerator,
            tell=tell_standstill,
        )


def find_crew(request: Request, stack: ExitStack, use_gpu: bool | None, scenes: Sequence[int]) -> Crew:
    """Join or start Ray where the request's engine is Ray; ``stack`` leaves it again.

    Args:
        request: What to map.
        stack: Leaves Ray.
        use_gpu: Whether the run that goes on has used GPUs; None for a new one. One that began on CPUs stays there,
            with its backend; one that began on GPUs takes CPUs where there are no others.
        scenes: Pixels of each.

    Raises:
        InputError: GPUs are asked for and there are none.
    """
    inference = request.inference
    if use_gpu is False and inference.use_gpu == "auto":
        inference = inference.model_copy(update={"use_gpu": False})
    if inference.engine == "inline":
        return Crew(None, inline_workers(inference))
    accelerator = None if inference.use_gpu is False else inference.actors.accelerator
    resources = stack.enter_context(ray_session(request.address)).with_gpus_of(accelerator)
    if accelerator is not None:
        # A cluster may have none of this kind at the moment; to go on without would be slow and dear.
        inference = inference.model_copy(update={"use_gpu": True})
    return Crew(resources, ray_workers(inference, resources, _cores(request, resources, scenes)), accelerator)
