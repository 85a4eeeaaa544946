"""Threads of a model that wait for each other."""

import os
import subprocess
import sys

import pytest

SHOWN = """
import os
from segbatch.models.threads import wait_without_spinning
assert "torch" not in __import__("sys").modules
wait_without_spinning()
os.environ["OMP_DISPLAY_ENV"] = "true"
import torch
"""


@pytest.mark.parametrize(("given", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_openmp_is_told_before_torch_is_loaded(given: str | None, expected: str) -> None:
    """What OpenMP itself says, as torch loads it."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if given is not None:
        environment["OMP_WAIT_POLICY"] = given
    found = subprocess.run([sys.executable, "-c", SHOWN], env=environment, capture_output=True, text=True, check=True)
    assert f"OMP_WAIT_POLICY = '{expected}'" in found.stderr
