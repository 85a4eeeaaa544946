"""The run configuration that users write: one YAML for training, mapping and reports."""

import difflib
import os
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from segbatch.classes import ClassTable, LabelMap
from segbatch.errors import InputError

Role = Literal["train", "validate", "predict"]
_SectionType = TypeVar("_SectionType", bound=BaseModel)
PositiveInt = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ClassEntry(_Section):
    """A class. Its id is its position in the list."""

    name: str
    """Unique name."""
    color: str | None = None
    """Colour in class masks and reports, as '#1f78b4'; chosen by segbatch when absent."""


class WindowEntry(_Section):
    """A part of a scene, in pixels."""

    col_off: int = Field(default=0, ge=0)
    """First column."""
    row_off: int = Field(default=0, ge=0)
    """First row."""
    width: PositiveInt | None = None
    """Columns; to the right border when absent."""
    height: PositiveInt | None = None
    """Rows; to the lower border when absent."""


class SceneEntry(_Section):
    """Scenes: one image, a glob of images, or a table."""

    image: str | None = None
    """Path or glob of images. Relative paths count from scenes.root."""
    label: str | None = None
    """The label of the image; '{name}' stands for the image's file name without its ending."""
    group: str | None = None
    """What the scenes belong to (a patient, an animal, a flight): reports have a line for each group."""
    pixel_size_um: float | None = Field(default=None, gt=0)
    """Micrometres a pixel, for scenes without a map."""
    table: str | None = None
    """CSV or Parquet table with the columns image, label, group, pixel_size_um, in place of 'image'.
    Relative paths in it count from the table's folder."""
    where: dict[str, Any] | None = None
    """Only the table's rows that have these values, as {split: train}."""

    @model_validator(mode="after")
    def _one_source(self) -> "SceneEntry":
        if (self.image is None) == (self.table is None):
            raise ValueError("give either 'image' or 'table'")
        if self.table is None and self.where is not None:
            raise ValueError("'where' belongs to 'table'")
        if self.table is not None and (self.label or self.group or self.pixel_size_um):
            raise ValueError("label, group and pixel_size_um are columns of the table")
        return self


class LabelledSceneEntry(SceneEntry):
    """Scenes for training and validation, which may be parts of an image."""

    window: WindowEntry | None = None
    """Use this part of the image only."""

    @model_validator(mode="after")
    def _window_of_an_image(self) -> "LabelledSceneEntry":
        if self.table is not None and self.window is not None:
            raise ValueError("'window' belongs to 'image', not to 'table'")
        return self


class Scenes(_Section):
    """Which images are for what."""

    root: str = "."
    """Folder from which relative paths count; itself relative to the working directory."""
    bands: list[int | str] | None = None
    """Bands to use, by number (from 1) or name; all but an alpha band when absent."""
    nodata: float | None = None
    """Fill value of the images where the files do not say it themselves."""
    train: list[LabelledSceneEntry] = []
    """Scenes that the model learns from."""
    validate_: list[LabelledSceneEntry] = Field(default=[], alias="validate")
    """Scenes that choose the best epoch."""
    predict: list[SceneEntry] = []
    """Scenes to map. Those with a label are evaluated."""

    def of(self, role: Role) -> Sequence[SceneEntry]:
        """The entries of a role."""
        entries: dict[Role, Sequence[SceneEntry]] = {
            "train": self.train,
            "validate": self.validate_,
            "predict": self.predict,
        }
        return entries[role]


class Model(_Section):
    """The network, built by segmentation-models-pytorch."""

    architecture: str = "unet"
    """Decoder: unet, unetplusplus, fpn, deeplabv3plus, segformer, ..."""
    encoder: str = "resnet34"
    """Encoder by segmentation-models-pytorch's name, or 'tu-' and a timm name."""
    weights: str | None = None
    """Pre-trained weights of the encoder by name (imagenet; downloaded), or none."""
    options: dict[str, Any] = {}
    """More arguments of the architecture, such as decoder_channels."""


class Training(_Section):
    """How the model is fitted."""

    epochs: PositiveInt = 30
    """Number of epochs; the scenes are validated after each."""
    steps_per_epoch: PositiveInt | None = None
    """Optimizer steps an epoch; as many as cover the training area once when absent."""
    tile: int = Field(default=512, ge=32)
    """Side of a training tile in pixels; a multiple of 32."""
    batch_size: PositiveInt = 8
    """Tiles a step, over all workers."""
    balance: float = Field(default=0.5, ge=0, le=1)
    """Share of tiles that are drawn around a class (rare ones more often than their area would), in place
    of anywhere in the training area."""
    loss: str = "ce+dice"
    """ce, dice, focal, or a sum of them."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Label smoothing of the cross-entropy."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate of AdamW; warm-up and cosine around it."""
    weight_decay: float = Field(default=1e-2, ge=0)
    """Weight decay of AdamW."""
    augment: Literal["none", "flips", "full"] = "full"
    """none; flips and quarter turns; or those with scale, brightness and contrast by band."""
    ema: float = Field(default=0.99, ge=0, lt=1)
    """Decay of the moving average of the weights that is validated and kept; 0 switches it off."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """auto: bf16 where the processor or GPU has it in hardware."""
    workers: PositiveInt = 1
    """Ray Train workers."""
    use_gpu: Literal["auto"] | bool = "auto"
    """A GPU for each worker; auto: where the cluster has enough."""
    max_failures: int = Field(default=3, ge=0)
    """How often training starts again from its last checkpoint when a worker or node is lost."""
    seed: int = 0
    """Seed of tiles, augmentation and initial weights."""

    @field_validator("tile")
    @classmethod
    def _tile_multiple(cls, tile: int) -> int:
        if tile % 32:
            raise ValueError(f"must be a multiple of 32; the nearest are {tile // 32 * 32} and {-(-tile // 32) * 32}")
        return tile

    @field_validator("loss")
    @classmethod
    def _known_loss(cls, loss: str) -> str:
        for term in loss.split("+"):
            if term.strip() not in ("ce", "dice", "focal"):
                raise ValueError(f"unknown loss {term.strip()!r}; there are ce, dice, focal and their sums, as ce+dice")
        return loss


class Actors(_Section):
    """Bounds of the pool of predicting actors."""

    min: PositiveInt = 1
    """Actors kept at all times."""
    max: PositiveInt | None = None
    """Most actors at a time; as many as the cluster has room for when absent."""


class Inference(_Section):
    """How scenes are mapped."""

    core: PositiveInt | Literal["auto"] = "auto"
    """Side in pixels of the part of a window that is kept; a multiple of the model's stride.
    auto: equal cores of at most 1024 pixels."""
    halo: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Context pixels around a core; a multiple of the model's stride. auto: as the bundle's card says."""
    blend: Literal["crop"] = "crop"
    """How windows meet: crop keeps each window's core."""
    batch_size: PositiveInt | Literal["auto"] = "auto"
    """Windows a forward pass. auto: 1 on a CPU, 8 on a GPU."""
    block_mb: PositiveInt = 32
    """Most megabytes of pixels, as stored, in a block: the unit of work, of writing and of resuming."""
    format: list[Literal["cog", "zarr"]] = Field(default=["cog", "zarr"], min_length=1)
    """Files to write for each scene."""
    overviews: Literal["mode", "nearest"] = "mode"
    """How a COG's overviews are made."""
    use_gpu: Literal["auto"] | bool = "auto"
    """A GPU for each actor; auto: where the cluster has one."""
    actors: Actors = Actors()
    """Bounds of the pool of predicting actors."""
    engine: Literal["ray", "inline"] = "ray"
    """ray: Ray Data; inline: this process alone."""


class Cluster(_Section):
    """Where the work is done."""

    address: str = "auto"
    """auto: the cluster this runs on (RAY_ADDRESS), else Ray on this machine; local: this machine;
    or the address of a cluster."""


class ClassFile(_Section):
    """Classes and how labels name them."""

    classes: list[ClassEntry] = Field(min_length=2)
    """The classes in the order of their ids."""
    label_values: dict[int, str] | None = None
    """Label value to class name; other values are ignored. Absent: label values are class ids."""

    @model_validator(mode="after")
    def _classes_agree(self) -> Self:
        try:
            self.label_map()
        except InputError as error:
            raise ValueError(str(error)) from error
        return self

    def class_table(self) -> ClassTable:
        """Names and colours by class id."""
        return ClassTable.from_items([(entry.name, entry.color) for entry in self.classes])

    def label_map(self) -> LabelMap:
        """From label values to class ids."""
        return LabelMap.from_names(self.label_values, self.class_table())


class RunConfig(ClassFile):
    """A segbatch run."""

    name: str
    """Name of the run, for titles and messages."""
    output: str
    """Folder of the run's files."""
    scenes: Scenes
    """Which images are for what."""
    model: Model = Model()
    """The network."""
    training: Training = Training()
    """How the model is fitted."""
    inference: Inference = Inference()
    """How scenes are mapped."""
    cluster: Cluster = Cluster()
    """Where the work is done."""

    @field_validator("output")
    @classmethod
    def _local_output(cls, output: str) -> str:
        return local_folder(output)


def local_folder(path: str) -> str:
    """The path, if it is a folder's.

    Raises:
        ValueError: It is a URL.
    """
    if "://" in path:
        raise ValueError(f"output {path!r} is a URL; a run's files go to a folder (or a shared file system)")
    return path


def load_config(path: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a configuration.

    Args:
        path: YAML file.
        overrides: ``key=value`` strings; keys are dotted and count lists from 0 (``scenes.train.0.image``),
            values are YAML.

    Raises:
        InputError: One line for each mistake.
    """
    data = read_yaml(path)
    for override in overrides:
        _override(data, override)
    return parse_config(data, path)


def parse_config(data: Any, source: str) -> RunConfig:
    """Check plain data against the schema; ``source`` names it in messages."""
    return parse_section(RunConfig, data, source)


def parse_section(section: type[_SectionType], data: Any, source: str) -> _SectionType:
    """Check plain data against a section of the schema.

    Raises:
        InputError: One line for each mistake.
    """
    try:
        return section.model_validate(data)
    except ValidationError as error:
        raise InputError("\n".join(_explain(error.errors(), data, source))) from error


def read_classes(path: str) -> tuple[ClassTable, LabelMap]:
    """Read the class table and the label values of a YAML file; other keys are left alone.

    Raises:
        InputError: They are missing or malformed.
    """
    data = read_yaml(path)
    found = parse_section(ClassFile, {key: data[key] for key in ("classes", "label_values") if key in data}, path)
    return found.class_table(), found.label_map()


def read_yaml(path: str) -> Any:
    """Read a YAML file that holds a mapping."""
    if not os.path.isfile(path):
        raise InputError(f"The configuration {path} does not exist.")
    try:
        with open(path, encoding="utf-8") as file:
            data = yaml.safe_load(file)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: no text, or a date that does not exist
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path} holds no settings: expected 'key: value' lines.")
    return data


def _override(data: Any, override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise InputError(f"--set {override}: write key=value, as in --set training.epochs=10.")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"--set {override}: the value is not YAML.") from error
    *parents, last = [int(part) if part.isdecimal() else part for part in key.strip().split(".")]
    node = data
    for part in parents:
        if isinstance(node, dict):
            node = node.setdefault(part, {})
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
        else:
            raise InputError(f"--set {override}: there is no {part!r} to set something in.")
    fits = isinstance(node, dict) or (isinstance(node, list) and isinstance(last, int) and last < len(node))
    if not fits:
        raise InputError(f"--set {override}: there is no {last!r} to set.")
    node[last] = value


def _explain(problems: Sequence[Any], data: Any, source: str) -> list[str]:
    """One line for each place where pydantic found something wrong."""
    messages: dict[str, list[str]] = {}
    for problem in problems:
        place = problem["loc"] if problem["type"] == "missing" else _place(problem["loc"], data)
        messages.setdefault(".".join(str(part) for part in place), []).append(_message(problem))
    lines = []
    for place, alternatives in messages.items():
        line = f"{source}: {place + ': ' if place else ''}{' or '.join(alternatives)}"
        lines.append(line if line.endswith(("?", ".")) else f"{line}.")
    return lines


def _place(location: Sequence[str | int], data: Any) -> Sequence[str | int]:
    """The part of a location that is in the data; pydantic adds a name for each type of a union."""
    node = data
    for depth, part in enumerate(location):
        inside = part in node if isinstance(node, dict) else isinstance(node, list) and isinstance(part, int)
        if not inside:
            return location[:depth]
        node = node[part]
    return location


def _message(problem: Any) -> str:
    kind, location = problem["type"], problem["loc"]
    if kind == "extra_forbidden":
        return f"unknown key{_nearest(str(location[-1]), _keys_at(location[:-1]))}"
    if kind == "missing":
        return "is missing"
    if kind == "model_type":
        return "expected 'key: value' settings"
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    shown = f" (got {problem['input']!r})" if isinstance(problem["input"], str | int | float | bool) else ""
    return f"{message}{shown}"


def _keys_at(location: Sequence[str | int]) -> list[str]:
    """The keys allowed at a place of the schema."""
    schema = RunConfig.model_json_schema(by_alias=True)
    node: Any = schema
    for part in location:
        node = _deref(node, schema)
        node = node.get("items", {}) if isinstance(part, int) else node.get("properties", {}).get(part, {})
    return list(_deref(node, schema).get("properties", {}))


def _deref(node: Any, schema: Any) -> Any:
    for choice in (node, *node.get("anyOf", ())):
        if "$ref" in choice:
            return schema["$defs"][choice["$ref"].rsplit("/", 1)[-1]]
    return node


def _nearest(word: str, known: Sequence[str]) -> str:
    # Swapped letters are the likeliest slip, and difflib finds 'table' as near to 'lable' as 'label'.
    swapped = [name for name in known if sorted(name) == sorted(word)]
    close = swapped or difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are {', '.join(known)}" if known else ""
