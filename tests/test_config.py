"""The run configuration: what is accepted, and what people are told where it is not."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from segbatch.classes import LabelMap
from segbatch.config import RunConfig, load_config, parse_config, read_classes
from segbatch.config.plain import parse_yaml
from segbatch.errors import InputError

EXAMPLE = """
name: landcover
output: runs/landcover
classes:                            # order = class id
  - {name: water, color: "#1f78b4"}
  - {name: forest, color: "#33a02c"}
scenes:
  train:
    - {image: train/a.tif, label: train/a_label.tif, group: site1, window: {row_off: 0, height: 4096}}
  validate:
    - {image: train/a.tif, label: train/a_label.tif, group: site1, window: {row_off: 4096}}
  predict:
    - {image: scenes/*.tif}
label_values: {1: water, 2: forest}
model: {architecture: unet, encoder: resnet34, weights: imagenet}
training: {epochs: 50, tile: 512, batch_size: 8, loss: ce+dice, workers: 2, use_gpu: auto}
inference: {core: auto, halo: auto, blend: crop, format: [cog, zarr]}
cluster: {address: auto}
"""


@pytest.fixture
def example(tmp_path: Path) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(EXAMPLE)
    return str(path)


def changed(key: str, value: Any) -> dict[str, Any]:
    """The example as plain data with one key (dotted, lists by number) set or added."""
    data: dict[str, Any] = yaml.safe_load(EXAMPLE)
    node: Any = data
    *parents, last = [int(part) if part.isdecimal() else part for part in key.split(".")]
    for part in parents:
        node = node[part]
    node[last] = value
    return data


def refusal(data: Any) -> str:
    """What people are told; always one line that begins with the file's name."""
    with pytest.raises(InputError) as caught:
        parse_config(data, "run.yaml")
    message = str(caught.value)
    assert message.startswith("run.yaml: ")
    assert len(message.splitlines()) == 1, message
    return message


def test_the_example_of_the_design_parses(example: str) -> None:
    config = load_config(example)
    assert (config.name, config.output) == ("landcover", "runs/landcover")
    assert config.class_table().names == ("water", "forest")
    assert config.class_table().colors == ("#1f78b4", "#33a02c")
    assert config.label_map().values == ((1, 0), (2, 1))
    (train,), (validate,), (predict,) = config.scenes.train, config.scenes.validate_, config.scenes.predict
    assert (config.scenes.of("train"), config.scenes.of("validate")) == ([train], [validate])
    assert train.window is not None
    assert validate.window is not None
    assert (train.image, train.label, train.group) == ("train/a.tif", "train/a_label.tif", "site1")
    assert (train.window.row_off, train.window.height, train.window.width) == (0, 4096, None)
    assert (validate.window.row_off, validate.window.height) == (4096, None)
    assert (predict.image, predict.label) == ("scenes/*.tif", None)
    assert (config.training.epochs, config.training.loss, config.training.use_gpu) == (50, "ce+dice", "auto")
    assert (config.inference.core, config.inference.halo, config.inference.format) == ("auto", "auto", ["cog", "zarr"])


def test_the_least_configuration_has_defaults_for_the_rest() -> None:
    least = {"name": "n", "output": "o", "classes": [{"name": "a"}, {"name": "b"}], "scenes": {}}
    config = parse_config(least, "run.yaml")
    assert config.label_map().values is None
    assert config.model.weights is None  # nothing is downloaded unless asked for
    assert config.scenes.of("predict") == []


def test_the_resolved_configuration_is_read_back_the_same(example: str, tmp_path: Path) -> None:
    config = load_config(example, ["training.learning_rate=3e-4", "scenes.bands=[1, nir]"])
    written = tmp_path / "resolved.yaml"
    written.write_text(yaml.safe_dump(config.model_dump(mode="json", by_alias=True)))
    assert load_config(str(written)) == config


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("trainning", "training"),
        ("training.epoch", "epochs"),
        ("inference.actors.maximum", "max"),
        ("scenes.validat", "validate"),
        ("scenes.validate_", "validate"),
        ("classes.1.colour", "color"),
        ("scenes.train.0.windw", "window"),
        ("scenes.validate.0.lable", "label"),
        ("scenes.train.0.window.rowoff", "row_off"),
        ("scenes.predict.0.pixel_size", "pixel_size_um"),
    ],
)
def test_an_unknown_key_names_the_nearest_right_one(key: str, nearest: str) -> None:
    data = changed("inference.actors", {}) if "actors" in key else yaml.safe_load(EXAMPLE)
    *parents, last = key.split(".")
    node: Any = data
    for part in parents:
        node = node[int(part) if part.isdecimal() else part]
    node[last] = 1
    message = refusal(data)
    assert key in message
    assert f"unknown key; did you mean '{nearest}'?" in message


def test_an_unknown_key_near_nothing_lists_what_there_is() -> None:
    assert "cluster.qqqq: unknown key; there are address" in refusal(changed("cluster.qqqq", 1))
    # A mapped scene has no window: the list says so.
    message = refusal(changed("scenes.predict.0.window", {"height": 5}))
    assert "scenes.predict.0.window: unknown key" in message


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("training.tile", 100, ["training.tile", "96 and 128", "100"]),
        ("training.tile", 0, ["training.tile", "32", "got 0"]),
        ("training.epochs", 0, ["training.epochs", "got 0"]),
        ("training.epochs", "many", ["training.epochs", "integer", "'many'"]),
        ("training.loss", "ce+dise", ["training.loss", "'dise'", "ce, dice, focal"]),
        ("training.augment", "all", ["training.augment", "'flips'", "'all'"]),
        ("training.use_gpu", "maybe", ["training.use_gpu", "'auto'", "boolean", "'maybe'"]),
        ("training.ema", 1, ["training.ema", "less than 1"]),
        ("training", None, ["training", "settings"]),
        ("inference.core", 0, ["inference.core", "greater than or equal to 1", "'auto'", "got 0"]),
        ("inference.halo", "wide", ["inference.halo", "integer", "'auto'", "'wide'"]),
        ("inference.format", ["cog", "png"], ["inference.format.1", "'cog' or 'zarr'", "'png'"]),
        ("inference.format", [], ["inference.format", "at least 1"]),
        ("scenes.bands", [1, 2.5], ["scenes.bands.1", "integer", "2.5"]),
        ("scenes.train.0.window.width", 0, ["scenes.train.0.window.width", "got 0"]),
        ("scenes.train.0.window.row_off", -1, ["scenes.train.0.window.row_off", "got -1"]),
        ("scenes.train.0.table", "t.csv", ["scenes.train.0", "either 'image' or 'table'"]),
        ("scenes.split", {"by": "scene"}, ["scenes", "'validate' and 'split' cannot both be given"]),
        ("scenes.split", {"by": "flight"}, ["scenes.split.by", "'scene', 'group' or 'block'", "got 'flight'"]),
        ("scenes.split", {"by": "block", "validate": 1}, ["scenes.split.validate", "less than 1", "got 1"]),
        ("scenes.split", {"by": "scene", "block": 512}, ["scenes.split", "'block' belongs to 'by: block'"]),
        ("scenes.split", {"by": "scene", "sead": 1}, ["scenes.split.sead", "did you mean 'seed'?"]),
        ("scenes.buffer", -1, ["scenes.buffer", "got -1"]),
        ("scenes.predict.0.image", None, ["scenes.predict.0", "either 'image' or 'table'"]),
        ("scenes.predict.0.where", {"a": 1}, ["scenes.predict.0", "'where' belongs to 'table'"]),
        ("scenes.predict.0", {"table": "t.csv", "label": "l.tif"}, ["scenes.predict.0", "columns of the table"]),
        ("scenes.train.0", {"table": "t.csv", "window": {}}, ["scenes.train.0", "'window' belongs to 'image'"]),
        ("scenes.predict.0.pixel_size_um", 0, ["scenes.predict.0.pixel_size_um", "got 0"]),
        ("label_values", {1: "watr", 2: "forest"}, ["label_values", "1", "'watr'", "water, forest"]),
        ("label_values", {1.5: "water"}, ["label_values", "1.5", "neither a whole number nor text", "in quotes"]),
        ("label_values", {False: "water"}, ["label_values", "False", "neither a whole number nor text", "in quotes"]),
        ("label_values", ["water"], ["label_values", "dictionary"]),
        ("label_background", "sky", ["label_background", "'sky'", "water, forest"]),
        ("classes", [{"name": "water"}], ["classes", "at least 2"]),
        ("classes.1.name", "water", ["Class name 'water' is given twice"]),
        ("classes.0.color", "blue", ["Color 'blue'", "#1f78b4"]),
        ("output", "http://host/run", ["output", "http://host/run", "folder"]),
        ("name", 7, ["name", "string", "got 7"]),
    ],
)
def test_a_wrong_value_is_told_in_one_line(key: str, value: Any, told: list[str]) -> None:
    message = refusal(changed(key, value))
    for part in told:
        assert part in message
    assert not re.search(r"constrained|literal\[|\.\.$|\?\.$", message), message


def test_a_missing_key_is_named() -> None:
    for key in ("name", "output", "classes", "scenes"):
        data = yaml.safe_load(EXAMPLE)
        del data[key]
        assert f"{key}: is missing" in refusal(data)
    data = changed("classes.1", {"color": "#000000"})
    assert "classes.1.name: is missing" in refusal(data)


def test_each_mistake_has_its_line() -> None:
    data = changed("training.epoch", 3)
    data["inference"]["core"] = -5
    data["clasess"] = []
    with pytest.raises(InputError) as caught:
        parse_config(data, "run.yaml")
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert all(any(key in line for line in lines) for key in ("training.epoch", "inference.core", "clasess"))


@pytest.mark.parametrize(
    ("override", "path", "expected"),
    [
        ("training.epochs=3", ("training", "epochs"), 3),
        ("training.learning_rate=1e-4", ("training", "learning_rate"), 1e-4),
        ("training.use_gpu=false", ("training", "use_gpu"), False),
        ("training.use_gpu=auto", ("training", "use_gpu"), "auto"),
        ("training.steps_per_epoch=null", ("training", "steps_per_epoch"), None),
        ("inference.format=[zarr]", ("inference", "format"), ["zarr"]),
        ("inference.actors.max=4", ("inference", "actors", "max"), 4),
        ("scenes.nodata=-9999", ("scenes", "nodata"), -9999.0),
        ("scenes.bands=[1, nir]", ("scenes", "bands"), [1, "nir"]),
        ("label_values.2=water", ("label_values", 2), "water"),
        ("label_values.-7=forest", ("label_values", -7), "forest"),
        ("label_values.lake=water", ("label_values", "lake"), "water"),
        ("label_attribute=landuse", ("label_attribute",), "landuse"),
        ("model.options.decoder_channels=[64, 32]", ("model", "options", "decoder_channels"), [64, 32]),
        ("name=a=b", ("name",), "a=b"),
        (" output = elsewhere", ("output",), "elsewhere"),
    ],
)
def test_set_replaces_a_value(example: str, override: str, path: tuple[str, ...], expected: Any) -> None:
    node: Any = load_config(example, [override])
    for part in path:
        node = node[part] if isinstance(node, dict) else getattr(node, part)
    assert node == expected
    assert type(node) is type(expected)


def test_set_counts_lists_from_zero(example: str) -> None:
    config = load_config(
        example, ["scenes.train.0.window.height=7", "classes.1.name=trees", "label_values={1: water, 2: trees}"]
    )
    assert config.scenes.train[0].window is not None
    assert (config.scenes.train[0].window.row_off, config.scenes.train[0].window.height) == (0, 7)
    assert config.class_table().names == ("water", "trees")


def test_later_overrides_win(example: str) -> None:
    assert load_config(example, ["training.epochs=3", "training.epochs=4"]).training.epochs == 4


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("training.epochs", "write key=value"),
        ("training.epochs=[1", "is not valid YAML"),
        ("name=2024-13-45", "is not valid YAML"),
        ("scenes.train.3.image=b.tif", "there is no 3"),
        ("scenes.train.x.image=b.tif", "there is no 'x'"),
        ("classes.2={name: c}", "there is no 2"),
        ("name.first=b", "there is no 'first'"),
        ("scenes.train.²=b", "there is no '²'"),
    ],
)
def test_set_that_leads_nowhere_is_refused(example: str, override: str, told: str) -> None:
    with pytest.raises(InputError, match=re.escape(told)) as caught:
        load_config(example, [override])
    assert f"--set {override}" in str(caught.value)


def test_set_of_an_unknown_key_is_refused_like_the_files(example: str) -> None:
    with pytest.raises(InputError, match=r"training\.epoch: unknown key; did you mean 'epochs'\?"):
        load_config(example, ["training.epoch=3"])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"name: [1, 2", "is not valid YAML: line 1, column 12"),
        (b"name: a\n\tclasses: []", "is not valid YAML: line 2"),
        (b"name: \xff\xfe\xff", "is not YAML: it is no text"),
        (b"started: 2024-13-45", "is not valid YAML"),
        (b"training: {epochs: 1, epochs: 3}", "line 1, column 23: the key 'epochs' is given twice, first in line 1"),
        (b"name: a\noutput: b\nname: c\n", "line 3, column 1: the key 'name' is given twice, first in line 1"),
        (b"", "holds no settings"),
        (b"- a\n- b\n", "holds no settings"),
        (b"just words", "holds no settings"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=told) as caught:
        load_config(str(path))
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_key_may_be_given_anew_where_others_are_merged_in() -> None:
    merged = "a: &a {x: 1, y: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, x: 3, '1': 0, 1: 0}"
    assert parse_yaml(merged)["c"] == {"x": 3, "y": 1, "1": 0, 1: 0}


def test_a_wrong_value_is_told_of_where_it_comes_from(example: str) -> None:
    with pytest.raises(InputError) as caught:
        load_config(example, ["inference.core=0", "training={epochs: 0}"], {"inference.halo": ("--halo", -1)})
    assert sorted(line.partition(": ")[::2] for line in str(caught.value).splitlines()) == [
        ("--halo", "inference.halo: should be greater than or equal to 0 or 'auto' (got -1)."),
        ("--set", "inference.core: should be greater than or equal to 1 or 'auto' (got 0)."),
        ("--set", "training.epochs: should be greater than or equal to 1 (got 0)."),
    ]


def test_yaml_errors_tell_the_line(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("name: a\noutput: b\nclasses: [\n")
    with pytest.raises(InputError, match="line 4"):
        load_config(str(path))


def test_yaml_cannot_run_code(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("name: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(InputError, match="is not valid YAML"):
        load_config(str(path))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "none.yaml")
    with pytest.raises(InputError, match=re.escape(f"The configuration {path} does not exist")):
        load_config(path)


def test_classes_alone_are_read_from_a_configuration_or_a_file_of_their_own(example: str, tmp_path: Path) -> None:
    config = load_config(example)
    assert read_classes(example) == (config.class_table(), config.label_map())
    path = tmp_path / "classes.yaml"
    path.write_text("classes: [{name: a}, {name: b, color: '#ffffff'}]\n")
    classes, label_map = read_classes(str(path))
    assert (classes.names, label_map) == (("a", "b"), LabelMap(2))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("labels: {}", "classes: is missing"),
        ("classes: [{name: a}]", "classes: List should have at least 2 items"),
        ("classes: [{name: a}, {name: b, colr: x}]", "classes.1.colr: unknown key; did you mean 'color'?"),
        ("classes: [{name: a}, {name: a}]", "Class name 'a' is given twice"),
    ],
)
def test_a_file_of_classes_that_makes_no_sense_is_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "classes.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(f"{path}: {told}")):
        read_classes(str(path))


def test_a_configuration_cannot_be_changed(example: str) -> None:
    config = load_config(example)
    before = copy.deepcopy(config)
    with pytest.raises(ValueError, match="frozen"):
        config.training.epochs = 3  # type: ignore[misc]
    assert config == before


def test_every_key_is_documented_in_the_json_schema() -> None:
    schema = RunConfig.model_json_schema(by_alias=True)
    sections = {"RunConfig": schema, **schema["$defs"]}
    assert {"Scenes", "SceneEntry", "LabelledSceneEntry", "Training", "Inference", "Cluster"} <= set(sections)

    def description(node: dict[str, Any]) -> str:
        """A key that holds a section has its description where pydantic finds the two equal."""
        section = sections[node["$ref"].rsplit("/", 1)[-1]] if "$ref" in node else {}
        return str(node.get("description") or section.get("description") or "").strip()

    bare = [name for name, section in sections.items() if not description(section)]
    bare += [
        f"{name}.{key}"
        for name, section in sections.items()
        for key, field in section["properties"].items()
        if not description(field)
    ]
    assert not bare
    assert all(section["additionalProperties"] is False for section in sections.values())
    assert "validate" in sections["Scenes"]["properties"]
