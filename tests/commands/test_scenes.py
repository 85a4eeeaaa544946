"""What is wrong with scenes is found before work begins, all of it at once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from segbatch.commands.scenes import attempt_all, check_all, open_role
from segbatch.config import parse_config
from segbatch.errors import InputError, SceneReadError
from segbatch.scenes import SceneRef, raster

REFS = [SceneRef(name, f"/data/{name}.tif") for name in "abcd"]


def check(ref: SceneRef) -> str:
    if ref.id == "b":
        raise InputError(f"{ref.image} does not exist.")
    if ref.id == "c":
        raise ValueError("cannot reshape array\nof size 0")
    if ref.id == "d":
        raise SceneReadError(f"{ref.image} is damaged")
    return ref.id


def test_an_error_of_a_library_is_one_scenes_fault() -> None:
    found, *problems = attempt_all(check, REFS)
    assert found == "a"
    assert {type(problem) for problem in problems} == {InputError}
    assert [str(problem) for problem in problems] == [
        "/data/b.tif does not exist.",
        "/data/c.tif cannot be read: ValueError: cannot reshape array",
        "/data/d.tif is damaged",
    ]
    assert isinstance(problems[1].__cause__, ValueError)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        check_all(check, REFS)
    assert caught.value.exit_code == 2
    assert [line.partition(" ")[0] for line in str(caught.value).splitlines()] == [ref.image for ref in REFS[1:]]
    with pytest.raises(InputError, match=r"(?s)^(scene \d has[^\n]*\n){8}\.\.\. and 3 more\.$"):
        check_all(_refuse, [SceneRef(str(number), f"/data/{number}.tif") for number in range(11)])
    assert check_all(check, REFS[:1]) == ["a"]
    with pytest.raises(KeyboardInterrupt):
        attempt_all(_interrupt, REFS)


def _refuse(ref: SceneRef) -> None:
    raise InputError(f"scene {ref.id} has no {ref.id}")


def test_what_is_wrong_with_many_scenes_alike_is_told_once() -> None:
    refs = [SceneRef(f"s{n}", f"https://me:pass@host/{n}.tif", f"/labels/{n}.tif") for n in range(12)]

    def refuse(ref: SceneRef) -> None:
        n = int(ref.id[1:])
        raise InputError(f"Label {ref.label} of {ref.image} has the value {5 if n else 9}.")

    with pytest.raises(InputError) as caught:
        check_all(refuse, refs)
    assert str(caught.value).splitlines() == [
        "Label /labels/0.tif of https://***@host/0.tif has the value 9.",
        "Label /labels/1.tif of https://***@host/1.tif has the value 5. (The same goes for s2, s3, s4, s5, s6, s7, s8, "
        "s9 and 2 more.)",
    ]


def test_a_label_that_is_the_image_itself_is_called_so(
    tmp_path: Path, make_raster: Callable[..., str], paint: Callable[..., NDArray[np.uint8]]
) -> None:
    for name in "ab":
        make_raster(tmp_path / f"{name}.tif", paint(40, 50))
    entry = {"image": str(tmp_path / "*.tif"), "label": str(tmp_path / "{name}.tif")}
    data = {"name": "n", "output": "o", "classes": [{"name": "a"}, {"name": "b"}], "scenes": {"train": [entry]}}
    with pytest.raises(InputError) as caught:
        open_role(parse_config(data, "test"), "train")
    image = tmp_path / "a.tif"
    assert str(caught.value) == (
        f"The label of {image} is the image itself: name the file that holds its classes. (The same goes for b.)"
    )


def _interrupt(ref: SceneRef) -> None:
    raise KeyboardInterrupt


def test_an_image_that_is_listed_in_parts_is_named(
    tmp_path: Path, make_raster: Callable[..., str], paint: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make_raster(tmp_path / "a.tif", paint(40, 50))

    def fail(*_: object) -> None:
        raise RuntimeError("PROJ: no database")

    monkeypatch.setattr(raster, "_describe", fail)
    parts = [{"image": image, "label": image, "window": {"row_off": row, "height": 20}} for row in (0, 20)]
    config = parse_config(
        {"name": "n", "output": "o", "classes": [{"name": "a"}, {"name": "b"}], "scenes": {"train": parts}}, "test"
    )
    with pytest.raises(InputError) as caught:
        open_role(config, "train")
    assert str(caught.value) == f"{image} cannot be read: RuntimeError: PROJ: no database"
