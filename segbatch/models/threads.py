"""How a process that runs a model uses the cores that it shares with others."""

import os


def wait_without_spinning() -> None:
    """Let threads that have done their part of an operation sleep; call it before the process loads torch.

    By default OpenMP's threads spin for a while, on cores that the processes which read and write need to go on, and
    with fewer cores than threads the one that is waited for is not even running: small images took three times as long.
    What the environment says goes before.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
