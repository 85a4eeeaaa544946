"""What is trained on and validates too."""

import re

import pytest
from affine import Affine
from rasterio.crs import CRS

from segbatch.errors import InputError
from segbatch.scenes import SceneInfo, SceneRef
from segbatch.scenes.atlas import Part
from segbatch.scenes.leakage import check_leakage

UTM18 = CRS.from_epsg(26918).to_wkt()


def part(image: str, rows: tuple[int, int] | None = None, group: str | None = None, x: int | None = None) -> Part:
    """A scene of 100 x 100 pixels or some rows of it; with ``x`` on a map."""
    on_map = Affine.identity() if x is None else Affine(1, 0, x, 0, -1, 0)
    crs = None if x is None else UTM18
    info = SceneInfo(image, 100, 100, "uint8", ("",), None, None, crs, on_map, -1, -1)
    window = None if rows is None else (0, rows[0], None, rows[1] - rows[0])
    return Part(SceneRef(image, image, f"{image}.label", group, window=window), info)


@pytest.mark.parametrize(
    ("train", "validate", "buffer", "message"),
    [
        (part("a"), part("a"), None, "a is trained on and validates."),
        (part("a", (0, 50)), part("a", (49, 100)), None, "The windows of a for training and validation overlap"),
        (part("a", (0, 50)), part("a", (57, 100)), 8, "are 7 px apart, but scenes.buffer is 8"),
        (part("a", x=0), part("b", x=99), 0, "a for training and b for validation overlap"),
        (part("a", x=0), part("b", x=103), 4, "a for training and b for validation are 3 px apart"),
        (part("a", group="g"), part("b", group="g"), None, "the same group g: as a and b. Put groups on one side"),
    ],
)
def test_what_is_on_both_sides_is_refused(train: Part, validate: Part, buffer: int | None, message: str) -> None:
    others = [part("x", x=5000, group="x"), part("y", group="y")]
    with pytest.raises(InputError, match=re.escape(message)):
        check_leakage([others[0], train], [validate, others[1]], buffer=buffer, tile=10)


def test_all_problems_are_told() -> None:
    with pytest.raises(InputError) as caught:
        check_leakage([part("a"), part("b")], [part("a"), part("b")], buffer=None, tile=10)
    assert len(str(caught.value).splitlines()) == 2
    many = [part(str(number)) for number in range(12)]
    with pytest.raises(InputError, match=r"\.\.\. and 4 more\.$"):
        check_leakage(many, many, buffer=None, tile=10)


@pytest.mark.parametrize(
    ("train", "validate", "buffer", "message"),
    [
        (part("a", (0, 50)), part("a", (54, 100)), None, r"Hint: The windows of a .* 4 px apart.*scenes\.buffer asks"),
        (part("a", x=0), part("b", x=99), None, r"Warning: b validates, and overlaps a, which is trained on"),
        (part("a", x=0), part("b", x=100), None, r"Hint: a for training and b for validation are 0 px apart"),
        # Tiles of 10 px are centred on a window of 4 and show 3 pixels more on each side.
        (part("a", (40, 44)), part("a", (46, 100)), 2, r"tiles of up to 10 px reach from the training windows of a"),
    ],
)
def test_what_may_flatter_is_said(train: Part, validate: Part, buffer: int | None, message: str) -> None:
    (line,) = check_leakage([train], [validate], buffer=buffer, tile=10)
    assert re.search(message, line), line


@pytest.mark.parametrize(
    ("train", "validate", "buffer"),
    [
        (part("a", (0, 50)), part("a", (55, 100)), None),
        (part("a", (0, 50)), part("a", (50, 100)), 0),
        (part("a", (40, 44)), part("a", (47, 100)), 3),
        (part("a", x=0), part("b", x=105), 5),
        (part("a"), part("b"), 5),
        # Windows of one image say what is apart.
        (part("a", (0, 50), "g"), part("a", (60, 100), "g"), None),
    ],
)
def test_what_is_apart_passes_in_silence(train: Part, validate: Part, buffer: int | None) -> None:
    assert check_leakage([train], [validate], buffer=buffer, tile=10) == []


def test_groups_of_divided_images_are_divided_by_windows() -> None:
    """As those of a split by block, whose table may be given back."""
    train = [part("a", (0, 40), "g"), part("b", group="g")]
    validate = [part("a", (60, 100), "g"), part("c", group="g")]
    assert check_leakage(train, validate, buffer=None, tile=10) == []
    assert check_leakage([part("b", group="g")], [part("c", group="g")], buffer=0, tile=10, by_block=True) == []
