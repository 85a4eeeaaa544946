"""Read a configuration: YAML, ``--set`` overrides, and checks against the schema."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from segbatch.classes import ClassTable, LabelMap
from segbatch.config.messages import explain
from segbatch.config.plain import parse_yaml
from segbatch.config.schema import ClassFile, RunConfig
from segbatch.errors import InputError
from segbatch.storage import place

_SectionType = TypeVar("_SectionType", bound=BaseModel)


def load_config(
    path: str, overrides: Sequence[str] = (), options: Mapping[str, tuple[str, Any]] | None = None
) -> RunConfig:
    """Read a configuration.

    Args:
        path: YAML file.
        overrides: ``key=value`` strings; keys are dotted and count lists from 0 (``scenes.train.0.image``),
            values are YAML.
        options: For each dotted key that an option of the command line sets, the option and its value.

    Raises:
        InputError: One line for each mistake, which names where the value comes from.
    """
    data = read_yaml(path)
    origins = {}
    for override in overrides:
        key, value = _parse_override(override)
        _set(data, key, value, f"--set {override}")
        origins[key] = "--set"
    for key, (option, value) in (options or {}).items():
        _set(data, key, value, option)
        origins[key] = option
    return parse_section(RunConfig, data, path, origins)


def parse_config(data: Any, source: str) -> RunConfig:
    """Check plain data against the schema; ``source`` names it in messages."""
    return parse_section(RunConfig, data, source)


def parse_section(
    section: type[_SectionType], data: Any, source: str, origins: Mapping[str, str] | None = None
) -> _SectionType:
    """Check plain data against a section of the schema.

    Args:
        section: Its model.
        data: What to check.
        source: Names the data in messages.
        origins: What to name in its place, for dotted keys that come from elsewhere.

    Raises:
        InputError: One line for each mistake.
    """
    try:
        return section.model_validate(data)
    except ValidationError as error:
        schema = section.model_json_schema(by_alias=True)
        raise InputError("\n".join(explain(error.errors(), data, source, schema, origins or {}))) from error


def read_classes(path: str) -> tuple[ClassTable, LabelMap]:
    """Read the class table and how labels name classes from a YAML file; other keys are left alone.

    Raises:
        InputError: They are missing or malformed.
    """
    data = read_yaml(path)
    found = parse_section(ClassFile, {key: data[key] for key in ClassFile.model_fields if key in data}, path)
    return found.class_table(), found.label_map()


def read_yaml(path: str) -> Any:
    """Read a YAML file that holds a mapping."""
    try:
        file = place(path)
    except ValueError as error:
        raise InputError(f"A configuration is a file or in an object store: {error}.") from error
    try:
        if not file.is_file():
            raise InputError(f"The configuration {path} does not exist.")
        data = parse_yaml(file.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not YAML: it is no text (UTF-8).") from error
    except ValueError as error:
        raise InputError(f"{path} is not valid YAML: {error}.") from error
    if not isinstance(data, dict):
        raise InputError(f"{path} holds no settings: expected 'key: value' lines.")
    return data


def _parse_override(override: str) -> tuple[str, Any]:
    key, equals, text = override.partition("=")
    if not equals:
        raise InputError(f"--set {override}: write key=value, as in --set training.epochs=10.")
    try:
        return key.strip(), parse_yaml(text)
    except ValueError as error:
        raise InputError(f"--set {override}: the value is not valid YAML: {error}.") from error


def _set(data: Any, key: str, value: Any, source: str) -> None:
    """Change the value of a dotted key; ``source`` names who wants it."""
    *parents, last = [int(part) if part.isdecimal() else part for part in key.split(".")]
    node = data
    for part in parents:
        if isinstance(node, dict):
            node[part] = {} if node.get(part) is None else node[part]  # "training:" alone is null
            node = node[part]
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
        else:
            raise InputError(f"{source}: there is no {part!r} to set something in.")
    fits = isinstance(node, dict) or (isinstance(node, list) and isinstance(last, int) and last < len(node))
    if not fits:
        raise InputError(f"{source}: there is no {last!r} to set.")
    node[last] = value
