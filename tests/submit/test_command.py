"""What is submitted is checked first, and named by what it does."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from segbatch.errors import InputError
from segbatch.storage import place, write_whole
from segbatch.submit.command import Command, check_inputs
from segbatch.submit.package import pack


def test_a_command_knows_what_it_does(parsed) -> None:
    command = parsed("run", "land.yaml", "--set", "training.epochs=3")
    assert command.name == "run"
    assert (command.run, command.output, command.writes) == ("Land cover, 2026", "/shared/land", "/shared/land")
    assert command.settings["training"]["epochs"] == 3
    assert command.entrypoint == "python -m segbatch run land.yaml --set training.epochs=3"
    assert command.base_id.startswith("run-land-cover-2026-")
    mapping = parsed("predict", "/shared/bundle", "/shared/a.tif", "--out", "/shared/map/../map2/")
    assert (mapping.run, mapping.output, mapping.config) == ("map2", "/shared/map2", None)
    assert parsed("predict", "--config", "land.yaml", "--core", "64").output == "/shared/land"
    assert parsed("report", "/shared/land").writes == ""
    assert parsed("calibrate", "/shared/bundle", "/shared/a.tif").writes == "/shared/bundle"
    assert parsed("demo", "--out", "/shared/demo").output == "/shared/demo"
    stored = parsed("predict", "s3://maps/land/bundle", "/shared/a.tif", "--out", "s3://maps/land/")
    assert (stored.run, stored.output) == ("land", "s3://maps/land")
    assert parsed("report", "s3://maps/land").output == "s3://maps/land"


def test_a_configuration_may_be_in_a_store(parsed, configuration: Path, remote: str) -> None:
    write_whole(place(remote) / "land.yaml", configuration.read_bytes())
    for words in (("run",), ("predict", "--config")):
        command = parsed(*words, f"{remote}/land.yaml")
        assert (command.output, command.config) == ("/shared/land", f"{remote}/land.yaml")
        assert command.entrypoint.endswith(f"{remote}/land.yaml")
        with pytest.raises(InputError, match=re.escape(f"The configuration {remote}/sea.yaml does not exist.")):
            parsed(*words, f"{remote}/sea.yaml")


def test_the_same_work_has_the_same_id(parsed, configuration: Path) -> None:
    first = parsed("run", "land.yaml").base_id
    assert parsed("run", "./land.yaml").base_id == first
    assert parsed("run", str(configuration)).base_id == first
    configuration.write_text("# a remark\n" + configuration.read_text())
    assert parsed("run", "land.yaml").base_id == first
    others = [
        parsed("train", "land.yaml"),
        parsed("run", "land.yaml", "--overwrite"),
        parsed("run", "land.yaml", "--set", "output=/shared/other"),
        parsed("run", "land.yaml", "--set", "training.epochs=3"),
    ]
    assert len({first, *(command.base_id for command in others)}) == 5


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), max_size=5))
def test_no_shell_reads_anything_into_the_words(words: list[str]) -> None:
    command = Command(("predict", *words), "x", "/x", None, None, ())
    assert shlex.split(command.entrypoint) == ["python", "-m", "segbatch", "predict", *words]


@given(st.text())
def test_ids_are_plain(run: str) -> None:
    found = Command(("evaluate",), run, "/x", None, None, ()).base_id
    assert found == "".join(letter for letter in found if letter in "abcdefghijklmnopqrstuvwxyz0123456789-")
    assert "--" not in found
    assert len(found) <= 42


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("submit run land.yaml", "'submit' cannot be submitted: choose from train, tune"),
        ("jobs list", "'jobs' cannot be submitted"),
        ("info /shared/a.tif", "'info' cannot be submitted"),
        ("run missing.yaml", "The configuration missing.yaml does not exist in the working directory"),
        ("run /missing.yaml", "The configuration /missing.yaml does not exist."),
        ("run land.yaml --set training.epoch=3", "did you mean 'epochs'"),
        ("run land.yaml --set output=runs/land", "The output folder runs/land is relative"),
        ("predict /b /a.tif --out runs/land", "The output folder runs/land is relative"),
        ("predict /b /a.tif", "Say where the class masks go with --out DIR."),
        ("report runs/land", "runs/land is relative"),
        ("calibrate bundle /a.tif", "bundle is relative"),
        ("demo", "runs/demo is relative"),
    ],
)
def test_what_cannot_work_is_found_here(parsed, words: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parsed(*words.split())


@pytest.mark.parametrize("words", ["run", "predict --speed 3", "predict --core many", "run land.yaml extra"])
def test_wrong_usage_is_the_commands_own(parsed, words: str) -> None:
    with pytest.raises(Exception, match=r"Missing|No such option|valid integer|unexpected") as error:
        parsed(*words.split())
    assert error.value.exit_code == 2


def test_relative_paths_must_go_along(parsed, configuration: Path) -> None:
    folder = configuration.parent
    (folder / "runs" / "model").mkdir(parents=True)
    (folder / "runs" / "model" / "config.json").touch()
    (folder / "scenes").mkdir()
    (folder / "scenes" / "a.tif").touch()
    with (folder / "scenes" / "b.tif").open("wb") as large:
        large.truncate(2**26)

    def check(*words: str) -> None:
        check_inputs(parsed(*words), pack(folder))

    out = ("--out", "/shared/map")
    check("run", "land.yaml")
    check("predict", "/shared/bundle", "/vsis3/bucket/a.tif", "s3://bucket/b.tif", "~/c.tif", *out)
    check("predict", "/shared/bundle", "scenes/a.tif", "scenes/*.tif", *out)
    check("evaluate", "--prediction", "scenes/a.tif", "--label", "/b.tif", "--classes", "land.yaml", *out)
    for words, message in (
        (("scenes/c.tif",), "scenes/c.tif does not exist in the working directory"),
        (("scenes/*.jp2",), r"scenes/\*.jp2 does not exist"),
        (("scenes/b.tif",), "scenes/b.tif is not sent to the cluster: it is too large or left out"),
        (("../a.tif",), "../a.tif lies outside of the working directory"),
        (("/a.tif", "--label", "labels/{name}.tif"), "labels/{name}.tif does not exist"),
        (("/a.tif", "--aoi", "fields.gpkg"), "fields.gpkg does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            check("predict", "/shared/bundle", *words, *out)
    with pytest.raises(InputError, match="runs/model is not sent"):
        check("predict", "runs/model", "/a.tif", *out)


def test_the_configurations_own_paths_are_checked_too(parsed, configuration: Path) -> None:
    data = yaml.safe_load(configuration.read_text())
    data["scenes"] = {"predict": [{"image": "*.tif"}], "train": [{"table": "train.csv"}]}
    data["model"] = {"init": "runs/old/bundle"}
    configuration.write_text(yaml.safe_dump(data))
    used = {name: set(parsed(name, "land.yaml").inputs) - {"land.yaml"} for name in ("run", "train")}
    used["predict"] = set(parsed("predict", "--config", "land.yaml").inputs) - {"land.yaml"}
    assert used == {
        "run": {"./*.tif", "./train.csv", "runs/old/bundle"},
        "train": {"./train.csv", "runs/old/bundle"},
        "predict": {"./*.tif"},
    }
    weights = ("--set", "model.init=null", "--set", "model.weights=encoder.pth")
    assert "encoder.pth" in parsed("train", "land.yaml", *weights).inputs
    assert "imagenet" not in parsed("train", "land.yaml", *weights[:2], "--set", "model.weights=imagenet").inputs
    with pytest.raises(InputError, match=r"\./\*.tif does not exist in the working directory"):
        check_inputs(parsed("predict", "--config", "land.yaml"), pack(configuration.parent))


def test_what_counts_from_a_place_in_a_store_is_not_sought_here(parsed, configuration: Path) -> None:
    data = yaml.safe_load(configuration.read_text())
    entries = [{"image": "*.tif", "label": "truth/{name}.tif"}, {"image": "./a[1].tif"}]
    data["scenes"] = {"root": "s3://bucket/tiles[1]/", "predict": entries, "train": [{"table": "train.csv"}]}
    configuration.write_text(yaml.safe_dump(data))
    check_inputs(parsed("run", "land.yaml"), pack(configuration.parent))


def test_a_folder_from_which_paths_count_is_no_pattern(parsed, configuration: Path) -> None:
    data, site = yaml.safe_load(configuration.read_text()), configuration.parent / "site [1]"
    (site / "truth").mkdir(parents=True)
    for name in ("a [2].tif", "truth/a [2].tif"):
        (site / name).touch()
    (configuration.parent / "site 1").mkdir()
    for image, label, found in (
        ("*.tif", "truth/{name}.tif", True),
        ("a [2].tif", "truth/a [2].tif", True),
        ("*.jp2", None, False),
        ("gone/*.tif", None, False),
    ):
        data["scenes"] = {"root": "site [1]", "predict": [{"image": image, "label": label}]}
        configuration.write_text(yaml.safe_dump(data))
        command, package = parsed("predict", "--config", "land.yaml"), pack(configuration.parent)
        if found:
            check_inputs(command, package)
        else:
            with pytest.raises(InputError, match=re.escape(f"site [1]/{image} does not exist in the working")):
                check_inputs(command, package)
