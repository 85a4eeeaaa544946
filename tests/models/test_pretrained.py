"""Weights from files and from other bundles, made on the spot."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from segbatch.classes import ClassTable
from segbatch.errors import InputError
from segbatch.models.build import build_model
from segbatch.models.bundle import Bundle, save_bundle
from segbatch.models.pretrained import load_from_bundle

OPTIONS = {"encoder_depth": 3, "decoder_channels": [16, 16, 8]}
MakeBundle = Callable[..., Bundle]


def make(bands: int = 3, encoder: str = "resnet18", classes: int = 3, **more: Any) -> Any:
    return build_model("unet", encoder, in_channels=bands, num_classes=classes, options=OPTIONS, **more)


def table(*names: str) -> ClassTable:
    return ClassTable.from_items([(name, None) for name in names])


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    """An encoder's weights as a classifier has them."""
    torch.manual_seed(5)
    state = {name: value.clone() for name, value in make().encoder.state_dict().items()}
    return {**state, "fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)}


@pytest.mark.parametrize("prefix", ["", "module.", "encoder.", "module.backbone."])
@pytest.mark.parametrize("kind", ["safetensors", "pth", "wrapped.pth"])
def test_an_encoder_starts_with_the_weights_of_a_file(
    tmp_path: Path, weights: dict[str, torch.Tensor], kind: str, prefix: str
) -> None:
    path = tmp_path / f"weights.{kind}"
    saved = {prefix + name: value for name, value in weights.items()}
    if kind == "safetensors":
        save_file(saved, path)
    else:
        torch.save({"epoch": 3, "state_dict": saved} if kind == "wrapped.pth" else saved, path)
    state = make(weights=str(path)).encoder.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in state.items())


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_timm_s_encoders_too(tmp_path: Path, name: str) -> None:
    """By the names in timm's own files, of which it joins some where it gives features."""
    torch.manual_seed(6)
    known = timm.create_model(name, pretrained=False).state_dict()
    path = tmp_path / "weights.safetensors"
    save_file(known, path)
    found = build_model("unet", f"tu-{name}", in_channels=3, num_classes=2, weights=str(path)).encoder.state_dict()
    first = known["conv1.weight" if name == "resnet18" else "stem.0.weight"]
    assert torch.equal(next(iter(found.values())), first)
    for value in found.values():
        assert any(value.shape == other.shape and torch.equal(value, other) for other in known.values())


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 6])
def test_the_first_convolution_is_inflated(tmp_path: Path, weights: dict[str, torch.Tensor], bands: int) -> None:
    """What is the same in all bands goes through as in a colour image of it."""
    path = tmp_path / "weights.safetensors"
    save_file(weights, path)
    encoder = make(bands, weights=str(path)).encoder
    image = torch.rand(1, 1, 32, 32)
    grey = torch.nn.functional.conv2d(image.expand(1, 3, 32, 32), weights["conv1.weight"], stride=2, padding=3)
    same = encoder.conv1(image.expand(1, bands, 32, 32))
    if bands in (1, 3, 6):
        torch.testing.assert_close(same, grey)
    assert encoder.conv1.weight.shape[1] == bands
    if bands > 1:
        torch.testing.assert_close(encoder.conv1.weight[:, 0] * bands, weights["conv1.weight"][:, 0] * 3)
    assert torch.equal(encoder.bn1.weight, weights["bn1.weight"])


class Evil:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("executed"),)


def test_files_that_do_not_fit_are_bad_input(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    def refused(path: Path, message: str, **more: Any) -> None:
        with pytest.raises(InputError, match=message):
            make(weights=str(path), **more)

    refused(tmp_path / "none.pth", "does not exist")
    path = tmp_path / "weights.pth"
    torch.save(weights, path)
    refused(path, "another network's", encoder="resnet50")
    torch.save({name: value for name, value in weights.items() if "layer2" not in name}, path)
    refused(path, r"lacks \d+ of this encoder's .* layer2\S* among them")
    torch.save([1, 2], path)
    refused(path, "no state dict")
    path.write_bytes(b"no weights")
    refused(path, "cannot be read")
    (tmp_path / "weights.safetensors").write_bytes(b"no weights")
    refused(tmp_path / "weights.safetensors", "cannot be read")


def test_nothing_in_a_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps({"conv1.weight": Evil()}))
    with pytest.raises(InputError, match="cannot be read as plain weights"):
        make(weights=str(path))
    assert not (tmp_path / "executed").exists()


def test_a_bundle_gives_its_weights_and_its_classes_by_name(tmp_path: Path, bundle: MakeBundle) -> None:
    other = bundle(seed=3)
    save_bundle(tmp_path / "bundle", other)
    known = other.model.state_dict()
    torch.manual_seed(9)
    model = make(classes=4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    load_from_bundle(model, table("forest", "road", "water", "roof"), str(tmp_path / "bundle"))
    for name, value in model.state_dict().items():
        if name.startswith("segmentation_head."):
            assert torch.equal(value[0], known[name][1])
            assert torch.equal(value[2], known[name][0])
            assert torch.equal(value[[1, 3]], before[name][[1, 3]])
        else:
            assert torch.equal(value, known[name])


def test_a_bundle_of_another_network_is_bad_input(tmp_path: Path, bundle: MakeBundle) -> None:
    save_bundle(tmp_path / "bundle", bundle())
    classes = table("a", "b", "c")
    for model in (
        make(bands=4),
        make(encoder="resnet50"),
        build_model("fpn", "resnet18", in_channels=3, num_classes=3),
    ):
        with pytest.raises(InputError, match="must be the same"):
            load_from_bundle(model, classes, str(tmp_path / "bundle"))
    with pytest.raises(InputError, match="does not exist"):
        load_from_bundle(make(), classes, str(tmp_path / "none"))
