"""Read a configuration: YAML, ``--set`` overrides, and checks against the schema."""

from collections.abc import Sequence
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from segbatch.classes import ClassTable, LabelMap
from segbatch.config.messages import explain
from segbatch.config.schema import ClassFile, RunConfig
from segbatch.errors import InputError
from segbatch.storage import place

_SectionType = TypeVar("_SectionType", bound=BaseModel)


def load_config(path: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a configuration.

    Args:
        path: YAML file.
        overrides: ``key=value`` strings; keys are dotted and count lists from 0 (``scenes.train.0.image``),
            values are YAML.

    Raises:
        InputError: One line for each mistake.
    """
    data = read_yaml(path)
    for override in overrides:
        _override(data, override)
    return parse_config(data, f"{path} with what the command line sets" if overrides else path)


def parse_config(data: Any, source: str) -> RunConfig:
    """Check plain data against the schema; ``source`` names it in messages."""
    return parse_section(RunConfig, data, source)


def parse_section(section: type[_SectionType], data: Any, source: str) -> _SectionType:
    """Check plain data against a section of the schema.

    Raises:
        InputError: One line for each mistake.
    """
    try:
        return section.model_validate(data)
    except ValidationError as error:
        schema = section.model_json_schema(by_alias=True)
        raise InputError("\n".join(explain(error.errors(), data, source, schema))) from error


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
        data = _Loader(file.read_text("utf-8"), path).get_single_data()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text, so no configuration.") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path} holds no settings: expected 'key: value' lines.")
    return data


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML's own would silently take the last.

    Args:
        text: YAML.
        path: Of the file, for messages.
    """

    def __init__(self, text: str, path: str) -> None:
        super().__init__(text)
        self.name = path

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """See `yaml.constructor.SafeConstructor.construct_mapping`."""
        found: set[tuple[str, Any]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in found:
                    raise InputError(f"{self.name}, line {key.start_mark.line + 1}: {key.value} stands twice.")
                found.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def _override(data: Any, override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise InputError(f"--set {override}: write key=value, as in --set training.epochs=10.")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"--set {override}: the value is not YAML.") from error
    *parents, last = [int(part) if part.isdecimal() else part for part in key.strip().split(".")]
    node = data
    for part in parents:
        if isinstance(node, dict):
            node[part] = {} if node.get(part) is None else node[part]  # "training:" alone is null
            node = node[part]
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
        else:
            raise InputError(f"--set {override}: there is no {part!r} to set something in.")
    fits = isinstance(node, dict) or (isinstance(node, list) and isinstance(last, int) and last < len(node))
    if not fits:
        raise InputError(f"--set {override}: there is no {last!r} to set.")
    node[last] = value
