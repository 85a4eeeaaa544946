"""Explain what is wrong with a configuration, a line for each place."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any


def explain(
    problems: Sequence[Any], data: Any, source: str, schema: Any, origins: Mapping[str, str] | None = None
) -> list[str]:
    """One line for each place where pydantic found something wrong.

    Args:
        problems: pydantic's errors.
        data: What was checked.
        source: Names the data, such as a file.
        schema: JSON schema of the section.
        origins: Names what some dotted keys come from, in place of ``source``.
    """
    messages: dict[str, list[str]] = {}
    for problem in problems:
        place = problem["loc"] if problem["type"] == "missing" else _place(problem["loc"], data)
        messages.setdefault(".".join(str(part) for part in place), []).append(_message(problem, schema))
    lines = []
    for place, alternatives in messages.items():
        message = _joined(alternatives)
        line = f"{_origin(place, origins or {}) or source}: {place + ': ' if place else ''}{message}"
        lines.append(line if line.endswith(("?", ".")) else f"{line}.")
    return lines


def _origin(place: str, origins: Mapping[str, str]) -> str | None:
    """Where the value at a place comes from; the last that set it or what it lies in."""
    found = [origin for key, origin in origins.items() if f"{place}.".startswith(f"{key}.")]
    return found[-1] if found else None


def _joined(alternatives: Sequence[str]) -> str:
    """What is wrong by each type of a union, without saying again what all of them say."""
    first = alternatives[0]
    got = first[first.rfind(" (got ") :] if " (got " in first else ""
    if len(alternatives) > 1 and got and all(text.endswith(got) for text in alternatives):
        texts = [text.removesuffix(got) for text in alternatives]
        return f"{' or '.join([texts[0], *(text.removeprefix('should be ') for text in texts[1:])])}{got}"
    return " or ".join(alternatives)


def _place(location: Sequence[str | int], data: Any) -> Sequence[str | int]:
    """The part of a location that is in the data; pydantic adds a name for each type of a union."""
    node = data
    for depth, part in enumerate(location):
        inside = part in node if isinstance(node, dict) else isinstance(node, list) and isinstance(part, int)
        if not inside:
            return location[:depth]
        node = node[part]
    return location


def _message(problem: Any, schema: Any) -> str:
    kind, location = problem["type"], problem["loc"]
    if kind == "extra_forbidden":
        return f"unknown key{nearest(str(location[-1]), _keys_at(location[:-1], schema))}"
    if kind == "missing":
        return "is missing"
    if kind == "model_type":
        return "expected 'key: value' settings"
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    shown = f" (got {problem['input']!r})" if isinstance(problem["input"], str | int | float | bool) else ""
    return f"{message}{shown}"


def _keys_at(location: Sequence[str | int], schema: Any) -> list[str]:
    """The keys allowed at a place of the schema."""
    node: Any = schema
    for part in location:
        node = _deref(node, schema)
        node = node.get("items", {}) if isinstance(part, int) else node.get("properties", {}).get(part, {})
    return list(_deref(node, schema).get("properties", {}))


def _deref(node: Any, schema: Any) -> Any:
    for choice in (node, *node.get("anyOf", ())):
        if "$ref" in choice:
            return schema["$defs"][choice["$ref"].rsplit("/", 1)[-1]]
    return node


def nearest(word: str, known: Sequence[str]) -> str:
    """The end of a message about an unknown word: the known one that was meant, or all of them."""
    # Swapped letters are the likeliest slip, and difflib finds 'table' as near to 'lable' as 'label'.
    swapped = [name for name in known if sorted(name) == sorted(word)]
    close = swapped or difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are {', '.join(known)}" if known else ""
