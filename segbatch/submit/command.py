"""The command to submit: checked as far as this machine can, by segbatch's own command line."""

import hashlib
import json
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any

from segbatch.commands.folder import refuse_relative
from segbatch.config import Role, RunConfig, load_config
from segbatch.errors import InputError
from segbatch.storage import is_remote, is_url, place
from segbatch.submit.package import Package

SUBMITTED = ("train", "tune", "predict", "evaluate", "run", "report", "calibrate", "demo")
_READERS = ("report",)
"""They may go on while another job is at work in the folder."""

_WEIGHTS = (".safetensors", ".pth")
"""Files of encoder weights; other words are names that segmentation-models-pytorch knows."""

_MOST_LETTERS = 20


@dataclass(frozen=True, slots=True)
class Command:
    """A command line of segbatch.

    Args:
        words: The command line, from the command's name on.
        run: Name of the run, for people.
        output: Folder that it writes to.
        config: Path of the configuration, as given; None without.
        settings: The resolved configuration as plain data; None without.
        inputs: Local paths that it reads, as given: relative ones count from the working directory.
    """

    words: tuple[str, ...]
    run: str
    output: str
    config: str | None
    settings: dict[str, Any] | None
    inputs: tuple[str, ...]

    @property
    def name(self) -> str:
        """Such as predict."""
        return self.words[0]

    @property
    def writes(self) -> str:
        """Folder that no other job should write to at the same time; empty where that does no harm."""
        return "" if self.name in _READERS else self.output

    @property
    def entrypoint(self) -> str:
        """The command line for a shell. The module, not the script: it is there where a checkout is sent, too."""
        return shlex.join(["python", "-m", "segbatch", *self.words])

    @property
    def base_id(self) -> str:
        """Submission id without the number of the try: the same for the same work in the same folder."""
        # Not the words that say where the configuration lies, but what it holds.
        where = None if self.config is None else os.path.normpath(self.config)
        words = [word for word in self.words if os.path.normpath(word) != where]
        content = json.dumps([words, self.output, self.settings], sort_keys=True, default=str)
        plain = re.sub(r"[^a-z0-9]+", "-", self.run.lower()).strip("-")[:_MOST_LETTERS].strip("-")
        return "-".join(filter(None, [self.name, plain, hashlib.sha256(content.encode()).hexdigest()[:8]]))


def parse(root: Any, words: Sequence[str], folder: Path) -> Command:
    """Check a command line without running it.

    Args:
        root: Typer's context of segbatch's command line itself.
        words: The command and its arguments.
        folder: Where the job will run; relative paths count from it.

    Raises:
        InputError: It cannot be submitted, its configuration is wrong, or its files would be lost.
        click.UsageError: No command of segbatch is called like this.
    """
    name, *rest = words
    if name not in SUBMITTED:
        raise InputError(f"{name!r} cannot be submitted: choose from {', '.join(SUBMITTED)}.")
    command = root.command.get_command(root, name)
    given = command.make_context(name, list(rest), parent=root).params
    config, settings = given.get("config"), None
    if config is not None:
        settings = _load(place(config), given.get("set_") or (), folder)
    output = _output(name, given, settings)
    output = output if is_url(output) else os.path.normpath(output)
    refuse_relative(place(output))
    return Command(
        words=tuple(words),
        run=settings.name if settings else place(output).name,
        output=output,
        config=None if config is None else str(config),
        settings=None if settings is None else _settings(settings),
        inputs=tuple(_inputs(name, given, settings)),
    )


def check_inputs(command: Command, package: Package) -> None:
    """Make sure that what is named by a relative path goes along; absolute paths are the cluster's own.

    Raises:
        InputError: It does not.
    """
    for path in command.inputs:
        if path.startswith(("/", "~")) or ":" in path:  # as in URLs and GDAL's names
            continue
        inside = os.path.normpath(path)
        if inside.split(os.sep)[0] == os.pardir:
            raise InputError(
                f"{path} lies outside of the working directory {package.folder}, which is what is sent. Give its "
                "absolute path on a file system that all nodes share."
            )
        found = [match.relative_to(package.folder).as_posix() for match in _matches(package.folder, inside)]
        if not found:
            raise InputError(f"{path} does not exist in the working directory {package.folder}, which is what is sent.")
        if not any(map(package.holds, found)):
            raise InputError(
                f"{path} is not sent to the cluster: it is too large or left out (runs/, .gitignore, .rayignore, "
                "--exclude). Give its absolute path on a file system that all nodes share."
            )


def _settings(settings: RunConfig) -> dict[str, Any]:
    """The resolved configuration as plain data. Prices decide nothing: with others, it is the same job."""
    return settings.model_dump(by_alias=True, mode="json", exclude={"cluster": {"prices"}})


def _load(path: Path, overrides: Sequence[str], folder: Path) -> RunConfig:
    found = path if is_remote(path) else folder / path
    if found.is_file() or path.is_absolute():
        return load_config(str(found), overrides)
    raise InputError(f"The configuration {path} does not exist in the working directory {folder}.")


def _output(name: str, given: dict[str, Any], settings: RunConfig | None) -> str:
    if settings is not None:
        return settings.output
    # calibrate notes what it finds on the bundle's card.
    found = given.get({"report": "run_dir", "calibrate": "bundle"}.get(name, "out"))
    if found is None:
        raise InputError("Say where the class masks go with --out DIR.")
    return str(found)


def _inputs(name: str, given: dict[str, Any], settings: RunConfig | None) -> Iterator[str]:
    for option in ("config", "classes", "bundle", "scene", "label", "prediction", "aoi"):
        value = given.get(option)
        yield from map(str, value if isinstance(value, list | tuple) else [value] if value else [])
    if settings is None:
        return
    used: dict[str, tuple[Role, ...]] = {"predict": ("predict",), "run": ("train", "validate", "predict")}
    for role in used.get(name, ("train", "validate")):
        for entry in settings.scenes.of(role):
            yield from (
                os.path.join(settings.scenes.root, path) for path in (entry.image, entry.label, entry.table) if path
            )
    if settings.inference.aoi and name in ("predict", "run"):
        yield settings.inference.aoi
    if name != "predict":
        weights = settings.model.weights or ""
        yield from filter(None, [settings.model.init, weights if weights.endswith(_WEIGHTS) else None])


def _matches(folder: Path, path: str) -> Iterator[Path]:
    """Files and folders by a path, a glob or a pattern with the image's {name}. A name that is there is no pattern."""
    steps = Path(path).parts
    there = list(takewhile(Path.exists, accumulate(steps, Path.joinpath, initial=folder)))
    rest = steps[len(there) - 1 :]
    return there[-1].glob("/".join(rest).replace("{name}", "*")) if rest else iter(there[-1:])
