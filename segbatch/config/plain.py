"""YAML as users write it: plain data only, and no key twice."""

from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """The safe loader, which also refuses a key that is given twice: PyYAML takes the last one without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping as it is written, before ``<<`` brings in keys that may well be given anew."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            first = lines.get((key.tag, key.value))
            if first is not None:
                problem = f"the key {key.value!r} is given twice, first in line {first}"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            lines[key.tag, key.value] = key.start_mark.line + 1
        return node


def parse_yaml(text: str) -> Any:
    """Plain data from YAML.

    Raises:
        ValueError: Where and why the text is not valid YAML.
    """
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{where}{error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
