"""What cluster/ holds, read once, and what says whether it is right."""

import shlex
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml

from segbatch.cli import app

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"

Manifest = dict[str, Any]


@pytest.fixture(scope="session")
def manifests() -> dict[str, list[Manifest]]:
    """The documents of each file in cluster/kubernetes."""
    files = sorted((CLUSTER / "kubernetes").glob("*.yaml"))
    return {path.name: list(yaml.safe_load_all(path.read_text(encoding="utf-8"))) for path in files}


@pytest.fixture(scope="session")
def raycluster(manifests: dict[str, list[Manifest]]) -> Manifest:
    (document,) = manifests["raycluster.yaml"]
    return document


@pytest.fixture(scope="session")
def faults() -> Callable[[Manifest], list[str]]:
    """What is wrong with a manifest, by schema.yaml beside this file."""
    schema = yaml.safe_load((Path(__file__).parent / "schema.yaml").read_text(encoding="utf-8"))

    def check(manifest: Manifest) -> list[str]:
        kind = f"{manifest['apiVersion']}/{manifest['kind']}"
        if kind not in schema["kinds"]:
            return [f"{kind} is no kind that cluster/ uses"]
        fields = schema["kinds"][kind]
        properties = {"apiVersion": {}, "kind": {}, **fields["properties"]}
        whole = {"$defs": schema["$defs"], "additionalProperties": False, **fields, "properties": properties}
        validator = jsonschema.Draft202012Validator(whole)
        return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(manifest)]

    return check


@pytest.fixture(scope="session")
def parse() -> Callable[[str], dict[str, Any]]:
    """Parse a line that begins with segbatch with the real command line, without running it.

    Returns the values of the command's parameters. What the command line refuses is raised.
    """

    def parse_line(line: str) -> dict[str, Any]:
        program, *words = shlex.split(line)
        assert program == "segbatch", line
        command = typer.main.get_command(app)
        while hasattr(command, "commands"):
            assert words, f"{line}: no command"
            name, *words = words
            assert name in command.commands, f"{line}: {name} is no command of segbatch"
            command = command.commands[name]
        return dict(command.make_context(line, words).params)

    return parse_line


@pytest.fixture(scope="session")
def parse_ray() -> Callable[[str], dict[str, Any]]:
    """The same for a line that begins with ray."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray Serve's, which is imported on the way
        from ray.scripts.scripts import cli

    def parse_line(line: str) -> dict[str, Any]:
        program, name, *words = shlex.split(line)
        assert program == "ray", line
        return dict(cli.commands[name].make_context(line, words).params)

    return parse_line
