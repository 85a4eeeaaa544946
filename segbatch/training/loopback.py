"""How the workers of one machine find each other: by a file and the loopback interface.

PyTorch's own meeting place is a server that listens on all interfaces and asks nobody for a token. Clusters cannot do
without it; their networks have to keep others out.
"""

import uuid
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import ray
import torch
from ray.train.torch import TorchConfig

_LOOPBACK = "127.0.0.1"

_TorchBackend: Any = TorchConfig().backend_cls


@dataclass
class LoopbackConfig(TorchConfig):
    """A `TorchConfig` for workers on this machine.

    Args:
        folder: Of this user alone, for the file in which the workers meet.
    """

    folder: str = ""

    @property
    def backend_cls(self) -> Any:
        """How workers are joined."""
        return _LoopbackBackend


class _LoopbackBackend(_TorchBackend):  # type: ignore[misc]  # Ray has no public name for it
    def on_start(self, worker_group: Any, backend_config: LoopbackConfig) -> None:
        """Join the workers in a process group."""
        backend = "nccl" if worker_group.get_resources_per_worker().get("GPU", 0) else "gloo"
        # A new file for each start: of an older one they would learn where dead workers were.
        place = str(Path(backend_config.folder) / uuid.uuid4().hex)
        count = len(worker_group)
        ray.get(
            [
                worker_group.execute_single_async(
                    rank, _join, backend, place, rank, count, timedelta(seconds=backend_config.timeout_s)
                )
                for rank in range(count)
            ]
        )


def _join(backend: str, place: str, rank: int, count: int, timeout: timedelta) -> None:
    # As a store and not as an address: PyTorch takes the latter's escaped characters as they are.
    store = torch.distributed.FileStore(place, count)  # type: ignore[attr-defined]
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=timeout)


def loopback_environment() -> dict[str, str]:
    """Variables that keep what PyTorch's workers say to each other on this machine."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(address.address == _LOOPBACK for address in addresses):
            return {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": name}
    return {}
