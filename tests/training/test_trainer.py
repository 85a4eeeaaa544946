"""The survey as one pass of Ray Data: the same sums as strip after strip, and a line for what goes wrong."""

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segbatch.classes import LabelMap
from segbatch.errors import InputError, SceneReadError, SegbatchError
from segbatch.inference import watch
from segbatch.training import survey, trainer
from segbatch.training.survey import Strip, Survey, TrainingScene
from segbatch.training.trainer import survey_scenes

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

MakeScene = Callable[..., TrainingScene]
LABELS = LabelMap(3)


@pytest.fixture
def scenes(make_scene: MakeScene) -> tuple[TrainingScene, ...]:
    """Float pixels, whose sums depend on their order, in strips of different heights."""
    rng = np.random.default_rng(0)
    sizes = [(100, 75), (41, 130), (64, 64)]
    return tuple(
        make_scene(
            f"s{index}",
            rng.normal(1e4, 1, (2, *size)).astype(np.float32),
            rng.integers(0, 3, size).astype(np.uint8),
            tiled=True,
            blockxsize=16,
            blockysize=16,
        )
        for index, size in enumerate(sizes)
    )


def content(found: Survey) -> tuple[Any, ...]:
    return found.cell, found.mean, found.std, found.percentiles, [grid.tolist() for grid in found.cells]


def instead(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Do something else where the second strip of the second scene is to be read."""

    def try_it(place: tuple[int, int], **what: Any) -> Strip:
        with pytest.MonkeyPatch.context() as patch:  # in a worker
            if place == (1, 1):
                patch.setattr(survey, "survey_strip", lambda *_: act())
            return survey.try_to_survey(place, **what)

    monkeypatch.setattr(trainer, "try_to_survey", try_it)


def test_the_pass_gives_the_same_to_the_bit_as_strip_after_strip(
    scenes: tuple[TrainingScene, ...],
    take_survey: Callable[..., Survey],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trainer, "_MOST_STRIPS", 2)
    kept = tmp_path / "storage" / "survey.npz"
    found = survey_scenes(scenes, 16, LABELS, kept.parent, kept)
    assert content(found) == content(take_survey(scenes, 16, LABELS))
    assert list(kept.parent.iterdir()) == [kept]
    # Once made, it is not made again.
    monkeypatch.setattr(trainer, "map_items", None)
    assert content(survey_scenes(scenes, 16, LABELS, kept.parent, kept)) == content(found)


def test_a_damaged_training_scene_is_named(
    scenes: tuple[TrainingScene, ...], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with open(scenes[1].image, "r+b") as file:
        file.truncate(os.path.getsize(scenes[1].image) // 2)
    with pytest.raises(SceneReadError, match=r"s1\.tif is damaged"):
        survey_scenes(scenes, 16, LABELS, tmp_path / "storage")
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_file_that_has_gone_is_bad_input(scenes: tuple[TrainingScene, ...], tmp_path: Path) -> None:
    os.unlink(scenes[2].label)
    with pytest.raises(InputError, match=r"s2_label\.tif"):
        survey_scenes(scenes, 16, LABELS, tmp_path / "storage")


def test_a_strip_that_ends_each_process_is_given_up_and_its_scene_named(
    scenes: tuple[TrainingScene, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a decoder does that crashes; Ray alone would try for ever."""
    lost = tmp_path / "lost"

    def crash() -> None:
        with open(lost, "a") as file:
            file.write(".")
        os.kill(os.getpid(), signal.SIGKILL)

    instead(monkeypatch, crash)
    with pytest.raises(SceneReadError) as caught:
        survey_scenes(scenes, 16, LABELS, tmp_path / "storage")
    said = "The training scene s1 was given up: 3 processes that were to read it from row 16 on were lost."
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)
    assert lost.read_text() == "..."


@pytest.mark.slow
def test_a_survey_in_which_nothing_moves_says_why_and_ends(
    scenes: tuple[TrainingScene, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a file server does not answer."""
    monkeypatch.setattr(watch, "QUIET_SECONDS", 2.0)
    monkeypatch.setattr(trainer, "_LONGEST_STRIP_SECONDS", 20)
    told, end = list[str](), tmp_path / "end"

    def hang() -> None:
        while not end.exists():
            time.sleep(0.1)

    instead(monkeypatch, hang)
    with pytest.raises(SegbatchError) as caught:
        survey_scenes(scenes, 16, LABELS, tmp_path / "storage", tell=told.append)
    end.touch()
    why = r"o strip of a training scene was counted for \d+ s: counting strip 1 of s1 for \d+ s; the cluster has 1 node"
    assert re.match(f"The run was given up: n{why}", str(caught.value))
    assert str(caught.value).endswith(" Run the same command again, without --overwrite, to go on.")
    assert any(re.match(f"  N{why}", line) for line in told)


def test_a_survey_that_hangs_is_stopped_at_once(
    scenes: tuple[TrainingScene, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, end = tmp_path / "reading", tmp_path / "end"

    def hang() -> None:
        reading.touch()
        while not end.exists():
            time.sleep(0.1)

    def interrupt() -> None:
        while not reading.exists():
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        instead(patched, hang)
        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            survey_scenes(scenes, 16, LABELS, tmp_path / "storage")
    # What is left of the first is not in the way of the next one.
    assert survey_scenes(scenes, 16, LABELS, tmp_path / "storage").cell == 16
    end.touch()
