"""Networks by name: what is built, and what is said about names and options that do not fit."""

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from segbatch.errors import InputError
from segbatch.models.build import build_model, check_names, model_stride

SMALL = {"encoder_depth": 3, "decoder_channels": [16, 16, 8]}


def build(architecture: str = "unet", encoder: str = "resnet18", **more: Any) -> torch.nn.Module:
    return build_model(architecture, encoder, **{"in_channels": 3, "num_classes": 2, **more})


def test_bands_and_classes_become_channels() -> None:
    model = build(in_channels=5, num_classes=7, options=SMALL).eval()
    with torch.inference_mode():
        assert model(torch.zeros(2, 5, 64, 96)).shape == (2, 7, 64, 96)


def test_options_reach_the_architecture() -> None:
    wide = build(options={**SMALL, "decoder_channels": [32, 16, 8]})
    assert wide.segmentation_head[0].in_channels == 8
    assert wide.decoder.blocks[0].conv1[0].out_channels == 32


@pytest.mark.parametrize(
    ("architecture", "options", "stride"),
    [
        ("unet", {}, 32),
        ("unet", {"encoder_depth": 4, "decoder_channels": [32, 16, 16, 8]}, 16),
        ("unet", SMALL, 8),
        ("fpn", {}, 32),
        ("deeplabv3plus", {"encoder_output_stride": 16}, 16),
    ],
)
def test_the_model_takes_every_multiple_of_its_stride(architecture: str, options: dict[str, Any], stride: int) -> None:
    model = build(architecture, options=options).eval()
    assert model_stride(model) == stride
    with torch.inference_mode():
        for side in (2 * stride, 3 * stride):
            assert model(torch.zeros(1, 3, side, 2 * stride)).shape == (1, 2, side, 2 * stride)


def test_the_stride_of_an_unknown_kind_of_network_is_32() -> None:
    assert model_stride(torch.nn.Conv2d(3, 2, 1)) == 32


@pytest.mark.parametrize(
    ("architecture", "encoder", "suggested"),
    [
        ("unett", "resnet18", "unet"),
        ("UNett", "resnet18", "unet"),
        ("deeplabv3+", "resnet18", "deeplabv3"),
        ("unet", "resnet81", "resnet18"),
        ("unet", "efficientnet_b0", "efficientnet-b0"),
    ],
)
def test_an_unknown_name_suggests_near_ones(architecture: str, encoder: str, suggested: str) -> None:
    wrong = encoder if encoder != "resnet18" else architecture
    with pytest.raises(InputError) as caught:
        build(architecture, encoder)
    message = str(caught.value)
    assert repr(wrong) in message
    assert suggested in message.split("did you mean")[1]


def test_a_name_like_no_other_is_answered_with_some_that_exist() -> None:
    with pytest.raises(InputError, match="some are .*unet"):
        build("qqqqq")


def test_an_unknown_timm_encoder_is_bad_input() -> None:
    with pytest.raises(InputError, match="tu-resnett18"):
        build(encoder="tu-resnett18")


@pytest.mark.parametrize("architecture", ["unet", "UnetPlusPlus", "fpn"])
def test_an_unknown_option_is_not_ignored(architecture: str) -> None:
    with pytest.raises(InputError, match=rf"{architecture} has no option 'encoder_dept'; did you mean encoder_depth"):
        build(architecture, options={"encoder_dept": 3})


@pytest.mark.parametrize(
    "options", [{"encoder_depth": 9}, {"encoder_depth": 3, "decoder_channels": [8]}, {"classes": 5}]
)
def test_options_that_do_not_fit_are_bad_input(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="unet with resnet18 cannot be built: ") as caught:
        build(options=options)
    assert "\n" not in str(caught.value)


def test_unknown_weights_name_those_that_exist() -> None:
    with pytest.raises(InputError, match="'imagenett'.*imagenet"):
        check_names("unet", "resnet18", "imagenett")
    with pytest.raises(InputError, match="'imagenett'.*imagenet"):
        build(weights="imagenett")
    check_names("unet", "resnet18", "imagenet")
    check_names("unet", "tu-resnet18", "imagenet")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[list[Any]]:
    """Every attempt to reach another machine fails at once and is noted; nothing is in the caches."""
    tried: list[Any] = []

    def refuse(host: Any, *rest: Any, **named: Any) -> Any:
        tried.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between attempts
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tried


@pytest.mark.filterwarnings("ignore:Error loading .* from Hugging Face Hub")
@pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet18", "mit_b0"])
def test_weights_that_cannot_be_downloaded_are_bad_input(no_network: list[Any], encoder: str) -> None:
    with pytest.raises(InputError, match=rf"weights 'imagenet' of {encoder} can.*model.weights to .* null") as caught:
        build(encoder=encoder, weights="imagenet")
    assert no_network, "nothing was downloaded: the test proves nothing"
    assert "\n" not in str(caught.value)
