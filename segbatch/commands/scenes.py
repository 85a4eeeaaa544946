"""Open the scenes that a command is about, and find what is wrong with them before work begins."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from segbatch.classes import LabelMap
from segbatch.commands.progress import listed, say
from segbatch.config import Role, RunConfig
from segbatch.errors import InputError, explain
from segbatch.redaction import redact
from segbatch.scenes import SceneInfo, SceneRef, check_label, open_scene
from segbatch.scenes.atlas import Part
from segbatch.scenes.catalog import list_scenes

_THREADS = 16
_MOST_PROBLEMS = 8

_Thing = TypeVar("_Thing")
_Result = TypeVar("_Result")


def describe(uri: str, nodata: float | None) -> SceneInfo:
    """What is known of a scene without reading its pixels."""
    with open_scene(uri, nodata) as reader:
        return reader.info


def _itself(thing: Any) -> SceneRef:
    ref: SceneRef = thing
    return ref


def attempt_all(
    check: Callable[[_Thing], _Result],
    things: Sequence[_Thing],
    scene: Callable[[_Thing], SceneRef] = _itself,
) -> list[_Result | InputError]:
    """Call ``check`` on each thing, such as a scene; its result, or what is wrong with the thing.

    Args:
        check: Refuses a thing with an error. One of a library is the thing's fault, too: others may be fine.
        things: Scenes, or what has one.
        scene: The scene of a thing, to name it.
    """

    def attempt(thing: _Thing) -> _Result | InputError:
        try:
            return check(thing)
        except InputError as error:
            return error
        except Exception as error:
            problem = InputError(explain(error, f"{scene(thing).image} cannot be read"))
            problem.__cause__ = error  # for --debug
            return problem

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(attempt, things))


def check_all(
    check: Callable[[_Thing], _Result],
    things: Sequence[_Thing],
    scene: Callable[[_Thing], SceneRef] = _itself,
) -> list[_Result]:
    """Call ``check`` on each thing, such as a scene, and report all problems at once; see `attempt_all`.

    Raises:
        InputError: A line for each problem; those who share it are named in its line.
    """
    results = attempt_all(check, things, scene)
    found = [(scene(thing), result) for thing, result in zip(things, results, strict=True)]
    problems = [(ref, result) for ref, result in found if isinstance(result, InputError)]
    if problems:
        lines = _shared_lines([(ref, str(problem)) for ref, problem in problems])
        if len(lines) > _MOST_PROBLEMS:
            lines[_MOST_PROBLEMS:] = [f"... and {len(lines) - _MOST_PROBLEMS} more."]
        raise InputError("\n".join(lines)) from problems[0][1]
    return [result for result in results if not isinstance(result, InputError)]


def _shared_lines(problems: Sequence[tuple[SceneRef, str]]) -> list[str]:
    """A line for each problem, once for all scenes of which the same is said but for their files' names."""
    alike: defaultdict[str, list[tuple[SceneRef, str]]] = defaultdict(list)
    for ref, line in problems:
        alike[_without_files(line, ref)].append((ref, line))
    lines = []
    for (_, line), *others in alike.values():
        names = [ref.id for ref, _ in others]
        lines.append(f"{line} (The same goes for {listed(names)}.)" if names else line)
    return lines


def _without_files(line: str, ref: SceneRef) -> str:
    for file in sorted(filter(None, (ref.image, ref.label)), key=len, reverse=True):
        line = line.replace(redact(file), "")
    return line


def fit_label(info: SceneInfo, label: str, label_map: LabelMap) -> None:
    """Refuse a label that is none of its image, and say what users should know of one that is.

    Raises:
        InputError: Says what does not fit.
    """
    if label == info.uri:
        raise InputError(f"The label of {label} is the image itself: name the file that holds its classes.")
    if warning := check_label(info, label, label_map):
        say(warning)


def open_role(config: RunConfig, role: Role) -> list[Part]:
    """Open the scenes of a role and check them and their labels; an image that is listed in parts once.

    Raises:
        InputError: A line for each scene that does not pass.
    """
    label_map, refs = config.label_map(), list_scenes(config.scenes, role)

    def check(same: Sequence[SceneRef]) -> SceneInfo:
        image, label = same[0].image, same[0].label
        if label is None and role != "predict":
            raise InputError(f"{image} is listed in scenes.{role} without a label.")
        info = describe(image, config.scenes.nodata)
        for ref in same:
            ref.crop(info.width, info.height)
        info.select_bands(config.scenes.bands)
        if label is not None:
            fit_label(info, label, label_map)
        return info

    parts: defaultdict[tuple[str, str | None], list[SceneRef]] = defaultdict(list)
    for ref in refs:
        parts[ref.image, ref.label].append(ref)
    infos = dict(zip(parts, check_all(check, list(parts.values()), lambda same: same[0]), strict=True))
    return [Part(ref, infos[ref.image, ref.label]) for ref in refs]


def check_alike(config: RunConfig, scenes: Sequence[Part]) -> None:
    """All scenes have as many bands as the first, of the same type.

    Raises:
        InputError: One differs.
    """
    bands, first = config.scenes.bands, scenes[0].info
    for _, info in scenes:
        if len(info.select_bands(bands)) != len(first.select_bands(bands)):
            raise InputError(
                f"{info.uri} has {len(info.select_bands(bands))} bands, but {first.uri} has "
                f"{len(first.select_bands(bands))}. Choose common ones with scenes.bands."
            )
        if info.dtype != first.dtype:
            raise InputError(f"{info.uri} holds {info.dtype}, but {first.uri} holds {first.dtype}: make them alike.")
