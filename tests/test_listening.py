"""Nothing listens beyond this machine unless it is asked to."""

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json, os, tempfile
import psutil
from segbatch.runtime import ray_session

def listening(process):
    try:
        name, connections = process.name(), process.net_connections("inet")
    except psutil.NoSuchProcess:  # workers come and go
        return []
    # UDP has no state; a socket of it that is bound and goes nowhere takes what comes.
    return [
        [name, found.laddr.ip, found.laddr.port]
        for found in connections
        if found.laddr and not found.raddr and found.status in (psutil.CONN_LISTEN, psutil.CONN_NONE)
    ]

def loop(config):
    import torch
    total = torch.ones(1)
    torch.distributed.all_reduce(total)
    assert total.item() == 2
    with open(config["told"], "a") as file:
        file.write(json.dumps(listening(psutil.Process())) + "\\n")

with ray_session("local") as resources:
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from segbatch.training.loopback import LoopbackConfig, loopback_environment

    with tempfile.TemporaryDirectory() as folder:
        told = os.path.join(folder, "told")
        TorchTrainer(
            loop,
            train_loop_config={"told": told},
            torch_config=LoopbackConfig(folder=folder),
            scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.5}),
            run_config=RunConfig(
                name="t", storage_path=folder, worker_runtime_env={"env_vars": loopback_environment()}
            ),
        ).fit()
        workers = [socket for line in open(told) for socket in json.loads(line)]
    me = psutil.Process()
    sockets = [socket for process in (me, *me.children(recursive=True)) for socket in listening(process)]
    print(json.dumps({"all": sockets, "worker": workers, "auth": os.environ.get("RAY_AUTH_MODE")}))
"""


@pytest.mark.ray
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only root may look at sockets")
def test_a_run_on_this_machine_listens_on_the_loopback_interface_alone() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    sockets = [tuple(socket) for socket in (*found["all"], *found["worker"])]
    assert {"gcs_server", "raylet"} <= {name for name, _, _ in sockets}, sockets
    assert found["worker"], "gloo listens, so that there is something to see"
    assert not [socket for socket in sockets if socket[1] not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")]
    assert found["auth"] == "token", "Ray asks for a token here, too"
