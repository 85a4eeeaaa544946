"""The settings that a search tries: drawn from its space, and checked before any work starts."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from segbatch.config.load import parse_config
from segbatch.config.messages import nearest
from segbatch.config.schema import RunConfig
from segbatch.config.training import Model, Training
from segbatch.config.tune import Range
from segbatch.errors import InputError

Settings = dict[str, Any]
"""Dotted keys of the configuration and their values, as {"training.tile": 256}."""

_SAME_FOR_ALL = {
    "training.epochs": "it is what a trial gets that is not stopped early",
    "training.workers": "it is the same for all trials",
    "training.use_gpu": "it is the same for all trials",
    "training.max_failures": "it is the same for all trials",
    "training.min_workers": "it is the same for all trials",
    "training.checkpoint_steps": "it changes no model",
    "training.mlflow": "it changes no model",
}

_POINTS = 2**14
"""Of a low-discrepancy sequence, before all combinations are gone through; a search has 1000 trials at the most."""

_SOURCE = "tune.space"


def draw(config: RunConfig) -> list[Settings]:
    """The settings to try, all different; the first are the same for any number of trials.

    The configuration's own come first where they lie in the space, so that the search tells what it is worth. The
    others follow a scrambled Sobol sequence, which covers the space more evenly than chance.

    Raises:
        InputError: A line for each key or value of the space that cannot be.
    """
    values = _checked(config)
    own = {key: read_setting(config, key) for key in values}
    first = [own] if all(_contains(among, own[key]) for key, among in values.items()) else []
    found: dict[str, Settings] = {}
    for settings in itertools.chain(first, _points(values, config.tune.seed), _combinations(values)):
        found.setdefault(json.dumps(settings, sort_keys=True), settings)
        if len(found) == config.tune.trials:
            break
    for settings in found.values():
        with_settings(config, settings)  # what goes with what
    return list(found.values())


def with_settings(config: RunConfig, settings: Mapping[str, Any]) -> RunConfig:
    """The configuration with other values.

    Raises:
        InputError: They do not fit.
    """
    data = config.model_dump(by_alias=True, mode="json")
    for key, value in settings.items():
        *parents, last = key.split(".")
        node = data
        for parent in parents:
            node = node[parent]
        node[last] = value
    return parse_config(data, _SOURCE)


def read_setting(config: RunConfig, key: str) -> Any:
    """The configuration's value of a dotted key of model or training; None where an option is not given."""
    section, field, *rest = key.split(".")
    node = getattr(getattr(config, section), field)
    for part in rest:
        node = node.get(part) if isinstance(node, dict) else None
    return node


def _checked(config: RunConfig) -> dict[str, list[Any] | Range]:
    """The space with values as the configuration understands them: PyYAML takes 1e-3 for a word."""
    problems: list[str] = []
    checked: dict[str, list[Any] | Range] = {}
    for key, among in config.tune.space.items():
        try:
            _check_key(key)
        except InputError as problem:
            problems.append(str(problem))
            continue
        understood = []
        for value in among.ends if isinstance(among, Range) else among:
            try:
                understood.append(read_setting(with_settings(config, {key: value}), key))
            except InputError as problem:
                problems.append(str(problem))
        if isinstance(among, Range) and any(isinstance(end, int) or not isinstance(end, float) for end in understood):
            problems.append(f"{_SOURCE}: {key}: is no fraction, so it has no range; give a list of values.")
        checked[key] = among if isinstance(among, Range) else understood
    if problems:
        raise InputError("\n".join(dict.fromkeys(problems)))
    return checked


def _check_key(key: str) -> None:
    known = [f"model.{field}" for field in Model.model_fields]
    known += [f"training.{field}" for field in Training.model_fields]
    if key in _SAME_FOR_ALL:
        raise InputError(f"{_SOURCE}: {key}: is nothing to search, {_SAME_FOR_ALL[key]}.")
    is_option = key.startswith("model.options.") and key.count(".") == 2
    if key not in known and not is_option:
        # The section alone may be missing: "tile" for "training.tile".
        meant = [name for name in known if name.endswith(f".{key}")]
        end = f"; did you mean {meant[0]!r}?" if meant else nearest(key, known)
        if ", " in end:  # all of them are too many to read
            end = "; see segbatch schema."
        raise InputError(f"{_SOURCE}: {key}: only keys of model and training can be searched{end}")


def _contains(among: list[Any] | Range, value: Any) -> bool:
    if isinstance(among, Range):
        return isinstance(value, int | float) and among.ends[0] <= value <= among.ends[1]
    return value in among


def _points(values: Mapping[str, list[Any] | Range], seed: int) -> Iterator[Settings]:
    import torch

    engine = torch.quasirandom.SobolEngine(len(values), scramble=True, seed=seed)
    for point in engine.draw(_POINTS, dtype=torch.float64).tolist():
        yield {key: _at(among, share) for (key, among), share in zip(values.items(), point, strict=True)}


def _combinations(values: Mapping[str, list[Any] | Range]) -> Iterator[Settings]:
    """All of a space that has lists only."""
    lists = [among for among in values.values() if not isinstance(among, Range)]
    if len(lists) == len(values):
        yield from (dict(zip(values, combination, strict=True)) for combination in itertools.product(*lists))


def _at(among: list[Any] | Range, share: float) -> Any:
    """The value that lies at a share, 0 to 1, of a list or range."""
    if not isinstance(among, Range):
        return among[min(int(share * len(among)), len(among) - 1)]
    low, high = among.ends
    value = low + share * (high - low) if among.uniform else math.exp(math.log(low) + share * math.log(high / low))
    return min(max(float(f"{value:.3g}"), low), high)
