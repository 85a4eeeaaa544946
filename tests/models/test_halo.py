"""The halo curve: what it says of other cores, the choice of a halo, and its place on the card."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segbatch.errors import InputError
from segbatch.models.bundle import Bundle, save_bundle
from segbatch.models.card import Card, bundle_hash, read_card, write_halo_curve
from segbatch.models.halo import HaloCurve

MakeCard = Callable[..., Card]
CURVE = HaloCurve(1024, ((0, 4e-3), (32, 4e-4), (64, 1e-4), (96, 2e-5), (128, 0.0)), 1_000_000)


def square(side: int) -> Callable[[int], float]:
    return lambda halo: 4 / side


def test_the_share_grows_with_the_border_of_a_core_by_its_area() -> None:
    assert CURVE.expected(64, 4 / 1024) == 1e-4
    assert CURVE.expected(64, 4 / 512) == pytest.approx(2e-4)
    assert CURVE.expected(64, 2 / 2048 + 2 / 1024) == pytest.approx(0.75e-4)
    assert CURVE.expected(0, 4) == 1.0
    assert CURVE.expected(0, 0) == 0.0


def test_a_halo_that_was_not_measured_is_worth_as_much_as_the_next_smaller_one() -> None:
    assert CURVE.expected(63, 4 / 1024) == 4e-4
    assert CURVE.expected(31, 4 / 1024) == 4e-3
    assert CURVE.expected(1000, 4 / 1024) == 0.0


@pytest.mark.parametrize(
    ("tolerance", "side", "halo"),
    [(1e-4, 1024, 64), (1e-4, 1023, 96), (1e-4, 256, 96), (1e-4, 128, 128), (1e-4, 8192, 32), (0.5, 1024, 32)],
)
def test_the_smallest_halo_that_is_good_enough_for_a_core(tolerance: float, side: int, halo: int) -> None:
    assert CURVE.smallest(tolerance, square(side)) == halo


def test_borders_may_depend_on_the_halo() -> None:
    asked = []

    def border(halo: int) -> float:
        asked.append(halo)
        return 4 / 256 if halo < 96 else 4 / 2048

    assert CURVE.smallest(1e-4, border) == 96
    assert asked == [32, 64, 96]


def test_where_no_halo_is_good_enough_the_largest_is_taken() -> None:
    short = HaloCurve(1024, CURVE.points[:3], 1000)
    assert short.smallest(1e-6, square(1024)) == 64


def test_no_halo_at_all_is_never_taken() -> None:
    assert HaloCurve(1024, ((0, 0.0), (8, 0.0)), 1000).smallest(1e-4, square(64)) == 8


def test_a_card_without_a_curve_has_its_default(card: MakeCard) -> None:
    assert card(halo=48).auto_halo(1e-4, square(1024)) == 48


def test_a_card_takes_its_default_where_it_is_larger_than_all_halos_that_are_not_good_enough(card: MakeCard) -> None:
    poor = HaloCurve(1024, ((0, 0.1), (32, 1e-2)), 1000)
    assert card(halo=64, halo_curve=poor).auto_halo(1e-4, square(1024)) == 64
    assert card(halo=16, halo_curve=poor).auto_halo(1e-4, square(1024)) == 32
    assert card(halo=64, halo_curve=poor).auto_halo(1e-1, square(1024)) == 32
    assert card(halo=64, halo_curve=CURVE).auto_halo(1e-5, square(1024)) == 128


@pytest.mark.parametrize("curve", [None, CURVE, HaloCurve(512, ((0, 1 / 3), (2, 1e-17)), 7)])
def test_a_curve_survives_json_with_its_card(card: MakeCard, curve: HaloCurve | None) -> None:
    written = card(halo_curve=curve)
    read = Card.from_json(json.loads(json.dumps(written.to_json())))
    assert read == written
    assert read.halo_curve == curve


def test_a_card_from_before_there_were_curves_is_read(card: MakeCard) -> None:
    data = card().to_json()
    del data["halo_curve"]
    assert Card.from_json(data) == card()


@pytest.mark.parametrize(
    "curve",
    [
        3,
        {"core": 1024, "points": [[0, 0.1], [32, 0.0]]},
        {"core": 1024, "points": [], "pixels": 1},
        {"core": 1024, "points": [[0, 0.1]], "pixels": 1},
        {"core": 1024, "points": [[8, 0.1], [16, 0.0]], "pixels": 1},
        {"core": 1024, "points": [[0, 0.1], [64, 0.0], [32, 0.0]], "pixels": 1},
        {"core": 1024, "points": [[0, 0.1], [32, 1.5]], "pixels": 1},
        {"core": 1024, "points": [[0, 0.1], [32, float("nan")]], "pixels": 1},
        {"core": 0, "points": [[0, 0.1], [32, 0.0]], "pixels": 1},
    ],
)
def test_a_damaged_curve_is_bad_input(card: MakeCard, tmp_path: Path, curve: Any) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).touch()
    (tmp_path / "segbatch.json").write_text(json.dumps({**card().to_json(), "halo_curve": curve}))
    with pytest.raises(InputError, match="not a bundle's card"):
        read_card(tmp_path)


@pytest.fixture
def saved(bundle: Callable[..., Bundle], tmp_path: Path) -> Path:
    save_bundle(tmp_path / "bundle", bundle())
    return tmp_path / "bundle"


def test_writing_a_curve_changes_nothing_else(saved: Path) -> None:
    card_file = saved / "segbatch.json"
    data = json.loads(card_file.read_text())
    card_file.write_text(json.dumps({**data, "segbatch": "9.9.9", "of_a_later_version": [1]}))
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    known = bundle_hash(saved)
    write_halo_curve(saved, CURVE)
    after = {path.name: path.read_bytes() for path in saved.iterdir()}
    assert after.keys() == before.keys()
    assert [name for name in before if before[name] != after[name]] == ["segbatch.json"]
    written = json.loads(after["segbatch.json"])
    assert written.pop("halo_curve") == CURVE.to_json()
    assert written == {**{key: data[key] for key in data if key != "halo_curve"}, "segbatch": "9.9.9",
                       "of_a_later_version": [1]}  # fmt: skip
    assert read_card(saved).halo_curve == CURVE
    # A run that was mapped before can go on, and another calibration changes as little.
    assert bundle_hash(saved) == known
    write_halo_curve(saved, HaloCurve(1024, ((0, 0.5), (8, 0.1)), 9))
    assert bundle_hash(saved) == known


def test_a_card_from_before_there_were_curves_has_the_same_hash(saved: Path) -> None:
    known = bundle_hash(saved)
    data = json.loads((saved / "segbatch.json").read_text())
    del data["halo_curve"]
    (saved / "segbatch.json").write_text(json.dumps(data))
    assert bundle_hash(saved) == known


def test_an_interruption_leaves_the_older_card(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    before = (saved / "segbatch.json").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", kill)
        with pytest.raises(Killed):
            write_halo_curve(saved, CURVE)
    assert (saved / "segbatch.json").read_bytes() == before
    write_halo_curve(saved, CURVE)
    assert read_card(saved).halo_curve == CURVE
