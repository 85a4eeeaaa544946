"""The files of Ray's cluster launcher, by its own validator."""

import re
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

from segbatch.runtime import keeping_processes
from segbatch.training.interrupt import GRACE_SECONDS

ROOT = Path(__file__).parents[2]
NAMES = ("aws", "machines")

Parse = Callable[[str], dict[str, Any]]


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster" / "launcher" / f"{name}.yaml").read_text(encoding="utf-8"))


def start(config: dict[str, Any], role: str) -> str:
    """The last command that starts Ray, with its exports."""
    return next(line for line in reversed(config[f"{role}_start_ray_commands"]) if "ray start " in line)


@pytest.mark.parametrize("name", NAMES)
def test_ray_finds_nothing_wrong(name: str) -> None:
    config = prepare_config(load(name))
    validate_config(config)
    assert config["head_node_type"] in config["available_node_types"]
    # Ray's defaults, where they would be used, install Ray's nightly build with the system's pip.
    commands = " ".join([*config["head_setup_commands"], *config["worker_setup_commands"]])
    assert not re.search(r"(^|[^/])\bpip install", commands)


@pytest.mark.parametrize("name", NAMES)
def test_ray_finds_a_misspelt_field(name: str) -> None:
    config = load(name)
    config["setup_comands"] = config.pop("setup_commands")
    with pytest.raises(ValidationError, match="setup_comands"):
        validate_config(prepare_config(config))


def test_workers_are_spot_machines_that_come_from_nothing() -> None:
    types = prepare_config(load("aws"))["available_node_types"]
    head = types.pop("head")
    assert head["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"]
    assert set(types) == {"cpu", "gpu-spot"}
    for worker in types.values():
        assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
        assert worker["min_workers"] == 0 < worker["max_workers"]
    assert load("aws")["max_workers"] == sum(worker["max_workers"] for worker in types.values())


def test_only_ssh_comes_in_from_outside() -> None:
    (permission,) = load("aws")["provider"]["security_group"]["IpPermissions"]
    assert permission["FromPort"] == permission["ToPort"] == 22
    assert "0.0.0.0/0" not in str(permission)


@pytest.mark.parametrize("name", NAMES)
def test_the_token_goes_to_all_nodes_and_is_asked_for(name: str) -> None:
    config = load(name)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for role in ("head", "worker"):
        assert "RAY_AUTH_MODE=token" in start(config, role)
        assert "RAY_ENABLE_UV_RUN_RUNTIME_ENV=0" in start(config, role)


@pytest.mark.parametrize("name", NAMES)
def test_ray_is_started_with_options_that_it_has(name: str, parse_ray: Parse) -> None:
    config = load(name)
    head = parse_ray(re.search(r"ray start .*", start(config, "head"))[0])
    assert head["head"] is True
    assert head["num_cpus"] == 0
    assert head["dashboard_host"] == "127.0.0.1"
    worker = parse_ray(re.search(r"ray start .*", start(config, "worker"))[0])
    assert worker["address"] == f"$RAY_HEAD_IP:{head['port']}"
    (setting,) = keeping_processes(1)
    assert f"RAY_{setting}=" in start(config, "worker")
    assert int(re.search(r"RAY_JOB_STOP_WAIT_TIME_S=(\d+)", start(config, "head"))[1]) > GRACE_SECONDS


def test_a_spot_machine_waits_for_its_notice(parse: Parse) -> None:
    line = load("aws")["worker_start_ray_commands"][-1]
    assert parse(re.search(r"segbatch drain .*?(?= >)", line)[0])["on_notice"] is True
    subprocess.run(["sh", "-n", "-c", line], check=True)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_installed_is_the_checkout_with_extras_that_it_has(name: str) -> None:
    (command,) = (command for command in load(name)["setup_commands"] if "pip install" in command)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = re.search(r"segbatch\[([a-z,]+)\]", command)[1].split(",")
    assert {"mlflow", "otel"} <= set(extras) <= set(project["optional-dependencies"])  # as the images have them
    version = re.search(r"^ARG RAY=(.+)$", (ROOT / "cluster" / "Dockerfile").read_text(), re.MULTILINE)[1]
    assert f"ray[data,default,train]=={version}" in command
    assert load(name)["file_mounts"]["~/segbatch"] == "."


@pytest.mark.parametrize("name", NAMES)
def test_no_file_of_the_users_environment_is_sent(name: str) -> None:
    assert {".git", ".venv"} <= set(load(name)["rsync_exclude"])
