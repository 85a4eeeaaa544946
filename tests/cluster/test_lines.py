"""The command lines that people copy: the crontab, and the ten steps of cluster/README.md."""

import re
import shlex
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from segbatch.config import load_config

ROOT = Path(__file__).parents[2]
TITLE = "# From nothing to a nightly map in ten steps"

Parse = Callable[[str], dict[str, Any]]


def steps() -> str:
    text = (ROOT / "cluster" / "README.md").read_text(encoding="utf-8")
    assert TITLE in text
    return text.split(TITLE)[1]


def lines() -> list[str]:
    """The lines of the steps' shell blocks, whole and without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", steps(), re.DOTALL)
    whole = "\n".join(blocks).replace("\\\n", " ")
    return [line for line in (re.sub(r"\s+# .*$", "", line).strip() for line in whole.splitlines()) if line]


def commands(program: str) -> list[str]:
    """What runs a program in the steps, also behind && and --."""
    found = []
    for line in lines():
        for part in re.split(r"&&|\|\||;| -- ", line):
            words = part.split(">>")[0].strip()
            if words.startswith(f"{program} "):
                found.append(words)
    return found


def test_there_are_ten_steps() -> None:
    assert re.findall(r"^(\d+)\. ", steps(), re.MULTILINE) == [str(number) for number in range(1, 11)]


def test_segbatch_knows_its_commands(parse: Parse) -> None:
    assert len(commands("segbatch")) >= 4
    for line in commands("segbatch"):
        parse(line)


def test_ray_knows_its_commands(parse_ray: Parse) -> None:
    assert len(commands("ray")) >= 3
    for line in commands("ray"):
        parse_ray(line)


def test_files_that_the_steps_name_are_there() -> None:
    named = set(re.findall(r"(?<![\w/])cluster/[\w./-]*\w", steps()))
    assert len(named) >= 8
    for path in named:
        assert (ROOT / path).exists(), path


def test_the_steps_apply_all_manifests() -> None:
    applied = set()
    for line in commands("kubectl"):
        words = shlex.split(line)
        if {"apply", "create"} & set(words):
            applied |= {Path(name).name for flag, name in pairwise(words) if flag == "-f"}
    manifests = {path.name for path in (ROOT / "cluster" / "kubernetes").glob("*.yaml")}
    # The one is instead of the other, mapping by hand is part of the night, and the last is for who has Prometheus.
    assert applied | {"raycronjob.yaml", "rayjob-predict.yaml", "podmonitor.yaml"} == manifests
    assert "raycronjob.yaml" in steps()


def test_names_in_the_steps_are_those_of_the_manifests() -> None:
    cluster = yaml.safe_load((ROOT / "cluster" / "kubernetes" / "raycluster.yaml").read_text(encoding="utf-8"))
    head = cluster["spec"]["headGroupSpec"]["template"]["spec"]
    config = next(volume["configMap"]["name"] for volume in head["volumes"] if "configMap" in volume)
    secret = head["containers"][0]["envFrom"][0]["secretRef"]["name"]
    text = "\n".join(lines())
    assert f"create configmap {config} --from-file=cluster/nightly.yaml" in text
    assert f"create secret generic {secret} " in text
    assert f"get secret {cluster['metadata']['name']} " in text
    assert f"svc/{cluster['metadata']['name']}-head-svc" in text


def test_the_crontab_has_one_line_that_cron_and_segbatch_take(parse: Parse) -> None:
    text = (ROOT / "cluster" / "crontab").read_text(encoding="utf-8")
    assert text.endswith("\n")  # cron ignores a line that does not end
    (line,) = re.findall(r"^[0-9*].*$", text, re.MULTILINE)
    match = re.fullmatch(r"(\d+) (\d+) \* \* \* (.*)", line)
    assert int(match[1]) < 60
    assert int(match[2]) < 24
    assert "%" not in match[3]  # a new line to cron
    (call,) = re.findall(r"segbatch [^>|&]*", match[3].split(">>")[0])
    values = parse(call)
    assert values["only_new"] is True
    assert load_config(str(ROOT / "cluster" / values["config"].name), ()).name == "nightly"


@pytest.mark.parametrize("code", [0, 3])
def test_the_crontabs_line_prints_only_after_a_bad_night(tmp_path: Path, code: int) -> None:
    line = re.findall(r"^[0-9*].*$", (ROOT / "cluster" / "crontab").read_text(encoding="utf-8"), re.MULTILINE)[0]
    command = line.split(maxsplit=5)[5].replace("/data", str(tmp_path))
    program = tmp_path / "segbatch"
    program.write_text(f"#!/bin/sh\necho mapping; echo warning >&2; exit {code}\n")
    program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    for _ in range(2):
        done = subprocess.run(
            ["/bin/sh", "-c", command], env=environment, capture_output=True, text=True, timeout=30, check=False
        )
    assert (tmp_path / "nightly.log").read_text() == "mapping\nwarning\n" * 2
    assert done.stderr == ""
    assert done.stdout == ("" if code == 0 else f"segbatch ended with 3, see {tmp_path}/nightly.log\n")
