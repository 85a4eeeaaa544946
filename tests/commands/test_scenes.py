"""What is wrong with scenes is found before work begins, all of it at once."""

from collections.abc import Callable
from pathlib import Path

import pytest

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
    with pytest.raises(InputError, match=r"(?s)^(/data/c[^\n]*\n){8}\.\.\. and 3 more\.$"):
        check_all(check, [REFS[2]] * 11)
    assert check_all(check, REFS[:1]) == ["a"]
    with pytest.raises(KeyboardInterrupt):
        attempt_all(_interrupt, REFS)


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
