"""Whether validation could be answered by heart: scenes, groups and places that are on both sides."""

from collections import defaultdict
from collections.abc import Sequence

from segbatch.errors import InputError
from segbatch.scenes.atlas import Atlas, Encounter, Part

_MOST_PROBLEMS = 8


def check_leakage(
    train: Sequence[Part], validate: Sequence[Part], *, buffer: int | None, tile: int, by_block: bool = False
) -> list[str]:
    """Refuse what validates and is trained on too.

    Args:
        train: Parts to learn from.
        validate: Parts that validate.
        buffer: Fewest pixels between them; None where users ask for no distance.
        tile: Side in pixels of the largest tile that training cuts.
        by_block: Whether places alone decide, so that groups may be on both sides.

    Returns:
        What users should know, a line each.

    Raises:
        InputError: A line for each overlap.
    """
    if not by_block:
        _check_groups(train, validate)
    atlas = Atlas([*train, *validate])
    warnings, problems, overlapping = [], [], set()
    for meeting in atlas.encounters(validate, train, max(buffer or 0, tile)):
        canvases = atlas.canvas(meeting.one), atlas.canvas(meeting.other)
        same = canvases[0] == canvases[1]
        if meeting.gap < (buffer or 0) and (same or buffer is not None):
            problems.append(_refusal(meeting, buffer or 0))
        elif meeting.gap < 0:
            overlapping.add(canvases)
            warnings.append(
                f"Warning: {meeting.one.ref.image} validates, and overlaps {meeting.other.ref.image}, which is trained "
                "on, on the map: what is in both is known. With scenes.buffer: 0 this is refused; scenes.split keeps "
                "such scenes apart."
            )
        elif buffer is None and meeting.gap < tile // 2:
            warnings.append(
                f"Hint: {_named(meeting)} are {meeting.gap} px apart, and what is near looks alike. scenes.buffer asks "
                "for a distance."
            )
    if len(problems) > _MOST_PROBLEMS:
        problems[_MOST_PROBLEMS:] = [f"... and {len(problems) - _MOST_PROBLEMS} more."]
    if problems:
        raise InputError("\n".join(problems))
    for meeting in atlas.encounters(validate, train, 0, tile):
        if meeting.gap < 0 and (atlas.canvas(meeting.one), atlas.canvas(meeting.other)) not in overlapping:
            warnings.append(
                f"Warning: tiles of up to {tile} px reach from the training windows of {meeting.other.ref.image} into "
                "what validates: the model sees those pixels, though not their labels. Make the windows larger."
            )
    return warnings


def _check_groups(train: Sequence[Part], validate: Sequence[Part]) -> None:
    """A group must not be on both sides, unless an image of it is: then its windows say what is apart."""
    sides: list[defaultdict[str, set[str]]] = [defaultdict(set), defaultdict(set)]
    for side, parts in zip(sides, (train, validate), strict=True):
        for part in parts:
            if part.ref.group is not None:
                side[part.ref.group].add(part.ref.image)
    both = sorted(group for group, images in sides[0].items() if group in sides[1] and not images & sides[1][group])
    if both:
        group, names = both[0], ", ".join(both[:_MOST_PROBLEMS]) + (", ..." if len(both) > _MOST_PROBLEMS else "")
        raise InputError(
            f"Trained on and validated with the same group{'s' if len(both) > 1 else ''} {names}: as "
            f"{min(sides[0][group])} and {min(sides[1][group])}. Put groups on one side; 'scenes.split: {{by: group}}' "
            "does."
        )


def _refusal(meeting: Encounter, buffer: int) -> str:
    one, other = meeting.one, meeting.other
    if one.ref.image == other.ref.image and one.window == other.window:
        return (
            f"{one.ref.image} is trained on and validates. Validate with other pixels than those that are trained on."
        )
    if meeting.gap < 0:
        return f"{_named(meeting)} overlap. Validate with other pixels than those that are trained on."
    return f"{_named(meeting)} are {meeting.gap} px apart, but scenes.buffer is {buffer}. Move their windows apart."


def _named(meeting: Encounter) -> str:
    """What is trained on and what validates, for people."""
    one, other = meeting.one, meeting.other
    if one.ref.image == other.ref.image:
        return f"The windows of {one.ref.image} for training and validation"
    return f"{other.ref.image} for training and {one.ref.image} for validation"
