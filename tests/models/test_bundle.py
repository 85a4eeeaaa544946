"""Bundles: what is saved is what is loaded, by others too, and nothing half-written is ever taken for one."""

import json
import pickle
import pickletools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch

from segbatch.classes import ClassTable, LabelMap
from segbatch.commands.predict import check_weights
from segbatch.errors import InputError
from segbatch.models.bundle import Bundle, load_bundle, save_bundle
from segbatch.models.card import bundle_hash, read_card

MakeBundle = Callable[..., Bundle]
FILES = ["config.json", "model.safetensors", "segbatch.json"]


def logits(model: torch.nn.Module) -> torch.Tensor:
    pixels = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32))
    with torch.inference_mode():
        return model.eval()(pixels)


def test_what_is_saved_is_what_is_loaded(bundle: MakeBundle, tmp_path: Path) -> None:
    saved = bundle()
    save_bundle(tmp_path / "deep" / "bundle", saved)
    loaded = load_bundle(tmp_path / "deep" / "bundle")
    assert not loaded.model.training
    assert loaded.card == saved.card
    assert loaded.card.training == saved.card.training
    assert torch.equal(logits(loaded.model), logits(saved.model))


def test_smp_loads_a_bundle_by_itself(bundle: MakeBundle, tmp_path: Path) -> None:
    saved = bundle()
    save_bundle(tmp_path / "bundle", saved)
    plain = smp.from_pretrained(str(tmp_path / "bundle"))
    assert torch.equal(logits(plain), logits(saved.model))


def test_the_folder_holds_three_readable_files_and_no_pickle(bundle: MakeBundle, tmp_path: Path) -> None:
    save_bundle(tmp_path / "bundle", bundle())
    files = sorted((tmp_path / "bundle").iterdir())
    assert [file.name for file in files] == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    for file in files:
        assert not file.read_bytes().startswith((b"\x80", b"PK")), f"{file.name} looks like a pickle"
        with pytest.raises(ValueError, match=".*"):
            list(pickletools.genops(file.read_bytes()))
    assert (tmp_path / "bundle").stat().st_mode & 0o777 == 0o755


def test_loading_fetches_no_weights(bundle: MakeBundle, tmp_path: Path) -> None:
    saved = bundle()
    saved.model.config["encoder_weights"] = "imagenet"  # as it is after training from pre-trained weights
    save_bundle(tmp_path / "bundle", saved)
    assert json.loads((tmp_path / "bundle" / "config.json").read_text())["encoder_weights"] is None


def test_a_bundle_replaces_an_older_one_whole(bundle: MakeBundle, tmp_path: Path) -> None:
    save_bundle(tmp_path / "bundle", bundle(0))
    (tmp_path / "bundle" / "notes.txt").write_text("of the older one")
    newer = bundle(1)
    save_bundle(tmp_path / "bundle", newer)
    assert sorted(path.name for path in (tmp_path / "bundle").iterdir()) == FILES
    assert torch.equal(logits(load_bundle(tmp_path / "bundle").model), logits(newer.model))
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_failed_save_leaves_the_older_bundle_and_nothing_else(
    bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = bundle(0)
    save_bundle(tmp_path / "bundle", older)
    broken = bundle(1)
    monkeypatch.setattr(broken.model, "save_pretrained", lambda folder: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_bundle(tmp_path / "bundle", broken)
    assert torch.equal(logits(load_bundle(tmp_path / "bundle").model), logits(older.model))
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it runs, so cleaning up is switched off as well."""


def test_a_kill_at_any_moment_leaves_a_whole_bundle_or_none(
    bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call that changes the folder tree may be the last."""
    seen = set()
    for moment in range(10):
        folder = tmp_path / str(moment) / "bundle"
        save_bundle(folder, bundle(0))
        calls = 0

        def maybe(real: Callable[..., Any], moment: int = moment) -> Callable[..., Any]:
            def call(*args: Any, **named: Any) -> Any:
                nonlocal calls
                if calls >= moment:
                    calls += 1
                    raise Killed
                calls += 1
                return real(*args, **named)

            return call

        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", maybe(Path.replace))
            patched.setattr(shutil, "rmtree", maybe(shutil.rmtree))
            killed = False
            try:
                save_bundle(folder, bundle(1))
            except Killed:
                killed = True
        if folder.exists():
            found = logits(load_bundle(folder).model)
            which = [seed for seed in (0, 1) if torch.equal(found, logits(bundle(seed).model))]
            assert len(which) == 1
            seen.add(which[0])
        save_bundle(folder, bundle(2))  # what the killed one left is in nobody's way
        assert torch.equal(logits(load_bundle(folder).model), logits(bundle(2).model))
        if not killed:
            break
    else:
        pytest.fail("save_bundle was never let through")
    assert seen == {0, 1}


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_bad_input(bundle: MakeBundle, tmp_path: Path, name: str) -> None:
    save_bundle(tmp_path / "bundle", bundle())
    (tmp_path / "bundle" / name).unlink()
    with pytest.raises(InputError, match=f"has no {name}"):
        load_bundle(tmp_path / "bundle")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", lambda data: data[: len(data) // 2]),
        ("model.safetensors", lambda data: b""),
        ("model.safetensors", lambda data: b"\xff" * 100),
        ("config.json", lambda data: b"{"),
        ("config.json", lambda data: b"{}"),
        ("config.json", lambda data: data.replace(b"resnet18", b"resnet34")),
        ("config.json", lambda data: data.replace(b'"Unet"', b'"NoSuchNetwork"')),
    ],
)
def test_a_damaged_file_is_bad_input(
    bundle: MakeBundle, tmp_path: Path, name: str, content: Callable[[bytes], bytes]
) -> None:
    save_bundle(tmp_path / "bundle", bundle())
    file = tmp_path / "bundle" / name
    changed = content(file.read_bytes())
    assert changed != file.read_bytes()
    file.write_bytes(changed)
    with pytest.raises(InputError, match="is damaged: .+") as caught:
        load_bundle(tmp_path / "bundle")
    assert "\n" not in str(caught.value)


def test_a_card_of_another_model_is_bad_input(bundle: MakeBundle, tmp_path: Path) -> None:
    two = ClassTable(("water", "forest"), ("#1f78b4", "#33a02c"))
    save_bundle(tmp_path / "classes", bundle(classes=two, label_map=LabelMap(2)))
    with pytest.raises(InputError, match="2 classes.* 3"):
        load_bundle(tmp_path / "classes")
    save_bundle(tmp_path / "bands", bundle(band_names=("", ""), mean=(1.0, 2.0), std=(1.0, 2.0)))
    with pytest.raises(InputError, match="2 bands.* 3"):
        load_bundle(tmp_path / "bands")


def test_the_hash_sees_what_a_bundle_computes_and_nothing_else(bundle: MakeBundle, tmp_path: Path) -> None:
    def hashed(made: Bundle) -> str:
        save_bundle(tmp_path / "bundle", made)
        return bundle_hash(tmp_path / "bundle")

    reference = hashed(bundle())
    assert hashed(bundle()) == reference
    assert hashed(bundle(training={"epoch": 9, "history": []})) == reference
    renamed = ClassTable(("water", "forest", "rock"), ("#1f78b4", "#33a02c", "#b15928"))
    others = [
        bundle(1),
        bundle(mean=(101.25, 90.1, 80.700001)),
        bundle(std=(20.5, 0.5, 18.0)),
        bundle(classes=renamed, label_map=LabelMap(3)),
        bundle(label_map=LabelMap(3)),
        bundle(halo=32),
        bundle(dtype="uint16"),
        bundle(band_names=("blue", "green", "red")),
    ]
    hashes = [hashed(other) for other in others]
    assert len({reference, *hashes}) == len(others) + 1


def test_reading_the_card_needs_no_weights(bundle: MakeBundle, tmp_path: Path) -> None:
    saved = bundle()
    save_bundle(tmp_path / "bundle", saved)
    (tmp_path / "bundle" / "model.safetensors").write_bytes(b"")
    assert read_card(tmp_path / "bundle") == saved.card


class Evil:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, ("executed", "w")


@pytest.mark.parametrize("zipped", [False, True])
def test_a_pickle_in_place_of_the_weights_is_refused_and_not_executed(
    bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "bundle"
    save_bundle(folder, bundle())
    weights = folder / "model.safetensors"
    if zipped:
        torch.save({"encoder.conv1.weight": Evil()}, weights)
    else:
        weights.write_bytes(pickle.dumps(Evil()))
    for name in ("pytorch_model.bin", "model.pt", "model.pkl"):
        (folder / name).write_bytes(pickle.dumps(Evil()))
    for load in (load_bundle, check_weights):
        with pytest.raises(InputError, match="is damaged") as error:
            load(folder)
        assert "\n" not in str(error.value)
    weights.unlink()
    for load in (load_bundle, read_card):
        with pytest.raises(InputError, match="is not a bundle: it has no model.safetensors"):
            load(folder)
    assert not (tmp_path / "executed").exists()


def test_a_bundle_makes_nobody_fetch_weights(
    bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(*_: object, **__: object) -> None:
        raise AssertionError("weights were fetched")

    saved = bundle()
    save_bundle(tmp_path / "bundle", saved)
    path = tmp_path / "bundle" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "encoder_weights": "imagenet"}))
    for name in ("hf_hub_download", "load_url"):
        monkeypatch.setattr(f"segmentation_models_pytorch.encoders.{name}", fetch)
    assert torch.equal(logits(load_bundle(tmp_path / "bundle").model), logits(saved.model))
