"""The Dockerfile, as far as it can be judged without building it."""

import re
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"


class Instruction(NamedTuple):
    name: str
    text: str


@pytest.fixture(scope="module")
def instructions() -> list[Instruction]:
    text = (CLUSTER / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ")
    return [Instruction(*re.fullmatch(r"([A-Z]+)\s+(.*)", line).groups()) for line in whole.splitlines()]


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def argument(instructions: list[Instruction], name: str) -> str:
    return next(text.partition("=")[2] for kind, text in instructions if kind == "ARG" and text.startswith(f"{name}="))


def test_nobody_is_root(instructions: list[Instruction]) -> None:
    users = [text for name, text in instructions if name == "USER"]
    assert users == ["1000:1000"]
    last = max(at for at, (name, _) in enumerate(instructions) if name == "FROM")
    after = [name for name, _ in instructions[last:]]
    # All that needs root comes before.
    assert after.index("USER") > max(at for at, name in enumerate(after) if name == "RUN")


def test_versions_are_those_of_pyproject(instructions: list[Instruction], project: dict) -> None:
    python = argument(instructions, "PYTHON")
    assert SpecifierSet(project["requires-python"]).contains(python)
    assert python == re.match(r">=([0-9.]+)", project["requires-python"])[1]
    ray = next(Requirement(text) for text in project["dependencies"] if text.startswith("ray["))
    version = argument(instructions, "RAY")
    assert ray.specifier.contains(version)
    cluster = yaml.safe_load((CLUSTER / "kubernetes" / "raycluster.yaml").read_text(encoding="utf-8"))
    assert cluster["spec"]["rayVersion"] == version
    installs = [text for name, text in instructions if name == "RUN" and "pyproject.toml" in text]
    assert len(installs) == 2
    for text in installs:
        assert "-r /tmp/pyproject.toml" in text
        assert f'"ray[{",".join(sorted(ray.extras))}]==${{RAY}}"' in text
        extras = re.findall(r"--extra (\S+)", text)
        assert set(extras) <= set(project["optional-dependencies"])
        assert {"mlflow", "otel"} <= set(extras)


def test_images_are_pinned_and_both_variants_are_there(instructions: list[Instruction]) -> None:
    stages = [re.fullmatch(r"(\S+)(?: AS (\w+))?", text).groups() for name, text in instructions if name == "FROM"]
    named = {name for _, name in stages}
    assert {"cpu", "cuda"} <= named
    for image, _ in stages[:-1]:
        assert image in named or image == "python:${PYTHON}-slim-bookworm"
    assert stages[-1] == ("${VARIANT}", None)
    assert argument(instructions, "VARIANT") in ("cpu", "cuda")


@pytest.mark.parametrize("index", ["", "INDEX"])
def test_the_cpu_variant_needs_an_index_and_uses_it(
    instructions: list[Instruction], tmp_path: Path, index: str
) -> None:
    (line,) = (text for name, text in instructions if name == "RUN" and "TORCH_INDEX" in text)
    uv = tmp_path / "uv"
    uv.write_text('#!/bin/sh\necho "$@"\n')
    uv.chmod(0o755)
    command = re.sub(r"--mount=\S+\s+", "", line)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "TORCH_INDEX": index, "RAY": "2.60.0"}
    done = subprocess.run(["/bin/sh", "-c", command], env=environment, capture_output=True, text=True, check=False)
    if index:
        assert "--index INDEX" in done.stdout
        assert done.stdout.split()[-1] == "ray[data,default,train]==2.60.0"
    else:
        assert done.returncode == 1
        assert "Give --build-arg TORCH_INDEX" in done.stderr
        assert done.stdout == ""


def test_no_index_and_no_secret_is_written_down() -> None:
    text = (CLUSTER / "Dockerfile").read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^(ARG|ENV) \w*(TOKEN|PASSWORD|SECRET)", text, re.MULTILINE)


def test_layers_hold_no_caches_and_no_tools(instructions: list[Instruction]) -> None:
    for name, text in instructions:
        if name == "RUN" and "uv pip install" in text:
            assert "--no-cache" in text
            assert "type=bind,from=tools,source=/usr/local/bin/uv" in text
        if name == "RUN" and "apt-get install" in text:
            assert "--no-install-recommends" in text
            assert "rm -rf /var/lib/apt/lists/*" in text
    last = max(at for at, (name, _) in enumerate(instructions) if name == "FROM")
    # The heavy layers depend on pyproject.toml alone, the last one on the code.
    (code,) = (text for name, text in instructions[last:] if name == "RUN")
    assert "--no-deps" in code
    assert "COPY" not in [name for name, _ in instructions[last:]]


def test_the_context_is_what_is_copied(instructions: list[Instruction]) -> None:
    rules = (CLUSTER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [rule for rule in rules if rule and not rule.startswith("#")]
    assert rules[0] == "*"
    kept = {rule[1:] for rule in rules if rule.startswith("!")}
    sources = {word for name, text in instructions if name == "COPY" for word in text.split()[:-1]}
    assert sources == kept
    for source in sources:
        assert (ROOT / source).exists()
    assert not any(fnmatch(".env", rule) for rule in kept)


def test_the_build_lines_of_the_comments_fit(instructions: list[Instruction]) -> None:
    lines = re.findall(r"docker build .*", (CLUSTER / "Dockerfile").read_text(encoding="utf-8"))
    assert len(lines) == 2
    known = {text.partition("=")[0] for name, text in instructions if name == "ARG"}
    for line in lines:
        assert set(re.findall(r"--build-arg (\w+)=", line)) <= known
        assert (ROOT / re.search(r"-f (\S+)", line)[1]).is_file()
