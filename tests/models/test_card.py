"""The card: roundtrip, the choice of bands, and what is said of folders that are no bundle."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from affine import Affine

from segbatch.classes import LabelMap
from segbatch.errors import InputError
from segbatch.models.card import Card, read_card
from segbatch.scenes import SceneInfo

MakeCard = Callable[..., Card]


def scene(names: Sequence[str], dtype: str = "uint8", alpha: int | None = None) -> SceneInfo:
    return SceneInfo(
        uri="scene.tif",
        width=10,
        height=10,
        dtype=dtype,
        band_names=tuple(names),
        alpha=alpha,
        nodata=None,
        crs=None,
        transform=Affine.identity(),
        size=1,
        modified=1,
    )


@pytest.mark.parametrize("label_map", [LabelMap(3), LabelMap(3, ((-5, 2), (1, 0), (70000, 1)))])
def test_a_card_survives_json(card: MakeCard, label_map: LabelMap) -> None:
    written = card(label_map=label_map, band_names=("", "nir", ""), std=(1e-9, 1 / 3, 1e12))
    read = Card.from_json(json.loads(json.dumps(written.to_json())))
    assert read == written
    assert read.training == written.training  # not part of the comparison of cards


def test_bands_are_matched_by_name_whatever_their_order(card: MakeCard) -> None:
    assert card().select_bands(scene(["nir", "Blue", "GREEN", "red"])) == (4, 3, 2)


def test_bands_are_matched_by_position_when_a_name_is_missing(card: MakeCard) -> None:
    assert card().select_bands(scene(["", "", ""])) == (1, 2, 3)
    assert card().select_bands(scene(["nir", "red", "green"])) == (1, 2, 3)
    assert card(band_names=("red", "", "blue")).select_bands(scene(["blue", "green", "red"])) == (1, 2, 3)


def test_a_name_that_two_bands_have_matches_none(card: MakeCard) -> None:
    assert card().select_bands(scene(["red", "green", "blue", ""], alpha=4)) == (1, 2, 3)
    with pytest.raises(InputError, match="has 4 bands"):
        card().select_bands(scene(["red", "red", "green", "blue"]))


def test_the_user_has_the_last_word(card: MakeCard) -> None:
    info = scene(["blue", "green", "red", "nir"])
    assert card().select_bands(info, [4, "green", 1]) == (4, 2, 1)


def test_an_alpha_band_is_left_out_unless_the_model_takes_as_many_bands_as_there_are(card: MakeCard) -> None:
    tagged = scene(["", "", "", ""], alpha=4)
    assert card(band_names=("", "", "")).select_bands(tagged) == (1, 2, 3)
    four = card(band_names=("",) * 4, mean=(1.0,) * 4, std=(1.0,) * 4)
    assert four.select_bands(tagged) == (1, 2, 3, 4)


def test_a_wrong_number_of_bands_names_both_and_the_way_out(card: MakeCard) -> None:
    with pytest.raises(InputError, match=r"scene.tif has 2 bands.* takes 3 \(red, green, blue\).*--bands"):
        card().select_bands(scene(["", ""]))
    with pytest.raises(InputError, match="2 bands of scene.tif are chosen"):
        card().select_bands(scene(["red", "green", "blue"]), [1, 2])
    # Chosen by the user, so nothing is guessed about alpha.
    with pytest.raises(InputError, match="2 bands of scene.tif are chosen"):
        card(band_names=("", "", "")).select_bands(scene(["", "", ""], alpha=3), [1, 2])


def test_another_pixel_type_is_refused(card: MakeCard) -> None:
    with pytest.raises(InputError, match="holds uint16, but the bundle was trained on uint8"):
        card().select_bands(scene(["red", "green", "blue"], dtype="uint16"))


def damaged(card: Card, change: Callable[[dict[str, Any]], Any]) -> str:
    data = card.to_json()
    replaced = change(data)
    return json.dumps(data if replaced is None else replaced)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.update(format=99), "99"),
        (lambda data: data.pop("mean") and None, "mean"),
        (lambda data: data.update(mean=["high", 1, 1]), "high"),
        (lambda data: data.update(mean=[1.0]), "mean"),
        (lambda data: data.update(stride=None), "int"),
        (lambda data: data.update(classes=["water"]), "str"),
        (lambda data: data.update(classes=[{"name": "water"}]), "1 classes"),
        (lambda data: data.update(label_values=[1, 2]), "list"),
        (lambda data: data.update(label_values={"1": "lava"}), "lava"),
        (lambda data: [data], "list"),
        (lambda data: 3, "int"),
    ],
)
def test_a_damaged_card_is_bad_input(
    card: MakeCard, tmp_path: Path, change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).touch()
    (tmp_path / "segbatch.json").write_text(damaged(card(), change))
    with pytest.raises(InputError, match=f"segbatch.json is not a bundle's card: .*{said}"):
        read_card(tmp_path)


def test_a_card_that_is_no_text_is_bad_input(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).touch()
    for content in (b"", b"{", b"\xff\xfe\x00"):
        (tmp_path / "segbatch.json").write_bytes(content)
        with pytest.raises(InputError, match="not a bundle's card"):
            read_card(tmp_path)


def test_a_folder_without_the_three_files_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_card(tmp_path / "nothing")
    names = ["config.json", "model.safetensors", "segbatch.json"]
    for present, missing in zip(([], names[:1], names[:2]), names, strict=True):
        for name in present:
            (tmp_path / name).touch()
        with pytest.raises(InputError, match=f"has no {missing}"):
            read_card(tmp_path)
